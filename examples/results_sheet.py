"""Draw good and bad predictions of an evaluation: pictures in the pages of results.

::

    python examples/results_sheet.py RUN/evaluation-test --out docs/pictures/camvid.jpg

Rows are the images with the highest, with the lowest, and with other scores, as the report of a
segmentation or a detection shows them. Columns: a segmentation's image, true classes, predicted
classes and wrong pixels; a detection's objects, detections, and hits, misses and false alarms.
"""

from __future__ import annotations

import argparse
import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from pacavit.explain.render import fitted_size, thumbnail
from pacavit.explain.render_segmentation import LETTERS, sheet
from pacavit.report.evaluation import RECORD
from pacavit.report.tasks import report_of
from pacavit.report.tasks.detection.examples import ObjectExamples
from pacavit.report.tasks.segmentation.examples import MaskExamples
from pacavit.tasks.segmentation.pictures import with_legend
from pacavit.utils.pictures import from_pillow, pillow_image

COLUMNS = {
    "image": "image",
    "truth": "truth",
    "prediction": "prediction",
    "errors": "wrong pixels in red",
    "compared": "hits solid, misses dashed, false alarms dotted",
}
"""Pictures of an example, if it has them, with their captions."""
SCORES = {"iou": "mean IoU of this image", "f1": "F1"}


def main() -> None:
    """Read the command line and write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("evaluation", type=Path, help="folder of an evaluation")
    parser.add_argument("--best", type=int, default=2, help="images with the highest scores")
    parser.add_argument("--worst", type=int, default=2, help="images with the lowest scores")
    parser.add_argument("--others", type=int, default=0, help="other images")
    parser.add_argument("--longer", type=int, default=300, help="pixels of a picture's longer side")
    parser.add_argument("--out", type=Path, default=Path("results.jpg"))
    arguments = parser.parse_args()

    details, names = stored(arguments.evaluation)
    rows = [
        *details.best[: arguments.best],
        *details.worst[: arguments.worst],
        *details.others[: arguments.others],
    ]
    if not rows:
        raise SystemExit("no images were asked for")
    found = [column for column in COLUMNS if hasattr(rows[0], column)]
    tiles = [tile for row in rows for tile in row_tiles(row, found, arguments.longer)]
    picture = sheet(tiles, columns=len(found))
    picture = with_legend(picture, list(zip(names, details.colors, strict=True)), LETTERS)
    pillow_image(picture).save(arguments.out, quality=88)
    print(f"wrote {arguments.out}")  # noqa: T201


def stored(folder: Path) -> tuple[MaskExamples | ObjectExamples, list[str]]:
    """The examples of an evaluation, and the names of its classes."""
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))
    except OSError as error:
        raise SystemExit(f"{folder} is no folder of an evaluation") from error
    details = report_of(record["task"]).read_details(folder)
    if not isinstance(details, MaskExamples | ObjectExamples):
        raise SystemExit(f"{folder} has no pictures of a segmentation or a detection")
    return details, [row["name"] for row in record["per_class"]]


def row_tiles(row: Any, columns: list[str], longer: int) -> list[tuple[Tensor, str]]:
    """The pictures of an example, with captions."""
    score = next(
        f"{title} {getattr(row, name):.2f}" for name, title in SCORES.items() if hasattr(row, name)
    )
    captions = [COLUMNS[column] for column in columns]
    captions[columns.index("prediction")] = f"prediction, {score}"
    pictures = (from_base64(getattr(row, column)) for column in columns)
    return [
        (thumbnail(picture, fitted_size((picture.shape[1], picture.shape[2]), longer)), caption)
        for picture, caption in zip(pictures, captions, strict=True)
    ]


def from_base64(text: str) -> Tensor:
    """A stored picture as (3, H, W) uint8."""
    return from_pillow(Image.open(BytesIO(base64.b64decode(text))).convert("RGB"))


if __name__ == "__main__":
    main()
