"""The report of segmentation: what is kept of images, files of predictions, and sections."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pacavit.data import (
    IGNORE_INDEX,
    Batch,
    DataInfo,
    ImageSet,
    MaskInfo,
    Placement,
    Region,
    Sample,
)
from pacavit.engine.evaluate import Evaluation, Measurement, summarize
from pacavit.engine.scoring import SplitScore
from pacavit.errors import PacavitError
from pacavit.report.tasks import SegmentationReport, StoredEvaluation, report_of
from pacavit.report.tasks.sampling import NUM_EXAMPLES
from pacavit.report.tasks.segmentation.files import SegmentationWriter
from pacavit.report.tasks.segmentation.observe import SegmentationObserver
from pacavit.tasks.segmentation import ImageSegmentation, Segmentation, SegmentationMetrics

NAMES = ("sky", "road", "car")
COLORS = ((0, 0, 250), (100, 100, 100), (250, 0, 0))
INFO = DataInfo(
    "masks", "test masks", NAMES, (16, 20), (0.5,) * 3, (0.2,) * 3, MaskInfo((1, 7, 200), COLORS)
)
SIZE = (16, 20)


class Pictures(ImageSet):
    """Images of two halves; a class is missing everywhere."""

    def __init__(self, num: int) -> None:
        self.num = num

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> Sample:
        image = torch.full((3, *SIZE), 40 + index, dtype=torch.uint8)
        return Sample(image, self.target(index), index)

    def target(self, index: int) -> Tensor:
        mask = torch.zeros(SIZE, dtype=torch.uint8)
        mask[8:] = 1
        mask[:, :2] = IGNORE_INDEX
        return mask

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def to(self, device: torch.device) -> Pictures:
        return self


def predicted(mask: Tensor, wrong_rows: int) -> Segmentation:
    """A record whose first rows are of the other class."""
    labels = torch.where(mask == IGNORE_INDEX, 0, mask)
    labels[:wrong_rows] = 1
    placement = Placement(SIZE, Region(0, 0, *SIZE), SIZE)
    return Segmentation(labels, None, torch.zeros(3, 1, 1), None, placement)


@pytest.fixture(scope="module")
def scored() -> tuple[SplitScore, SegmentationObserver]:
    images, observer = Pictures(20), SegmentationObserver()
    metrics = SegmentationMetrics(3)
    for first in (0, 10):
        rows = list(range(first, first + 10))
        masks = [images.target(row) for row in rows]
        # Image 7 is best, image 19 worst.
        records = [
            predicted(mask, (row - 7) % 20 // 2) for row, mask in zip(rows, masks, strict=True)
        ]
        batch = Batch(torch.zeros(10, 3, *SIZE), masks, torch.tensor(rows))
        metrics.update(records, masks)
        observer(records, batch)
    measured = Measurement(metrics.compute(), 20, 10.0)
    return SplitScore(evaluation_of(measured), images, INFO, None), observer


def evaluation_of(measured: Measurement) -> Evaluation:
    class Summary:
        config = type("Config", (), {"name": "segmentation"})

        @staticmethod
        def summarize(results: Any) -> Any:
            return dict(results)

    return summarize(Summary(), measured, NAMES)  # type: ignore[arg-type]


def test_the_images_with_the_lowest_and_highest_scores_are_kept(
    scored: tuple[SplitScore, SegmentationObserver],
) -> None:
    _, observer = scored
    worst, best, others = observer.chosen()
    by_iou = sorted(observer.scores, key=lambda each: each.iou)
    assert [round(by_iou[n].iou, 6) for n in range(NUM_EXAMPLES)] == [
        round(next(s.iou for s in observer.scores if s.position == p), 6) for p in worst
    ]
    assert set(best) <= {each.position for each in by_iou[-2 * NUM_EXAMPLES :]}
    assert len({*worst, *best, *others}) == len(worst) + len(best) + len(others)
    assert list(others) == sorted(others)


def test_scores_of_an_image_are_its_own(scored: tuple[SplitScore, SegmentationObserver]) -> None:
    score, observer = scored
    own = next(each for each in observer.scores if each.position == 19)
    truth = score.images.target(19).numpy()
    labels = predicted(score.images.target(19), 6).labels.numpy()
    known = truth != IGNORE_INDEX
    assert own.labeled == known.sum() == 16 * 18
    assert own.accuracy == pytest.approx((truth == labels)[known].mean())
    ious = [
        ((truth == k) & (labels == k))[known].sum() / ((truth == k) | (labels == k))[known].sum()
        for k in (0, 1)
    ]
    assert own.iou == pytest.approx(np.mean(ious))


def test_files_and_sections_of_an_evaluation(
    scored: tuple[SplitScore, SegmentationObserver], tmp_path: Path
) -> None:
    score, observer = scored
    report = report_of("segmentation")
    assert isinstance(report, SegmentationReport)
    contents = report.contents(score, observer, title="test", heatmaps=None)
    assert set(contents) == set(report.files)
    rows = list(csv.DictReader(io.StringIO(contents["images.csv"].decode())))
    assert [row["image"] for row in rows] == [f"masks #{n}" for n in range(20)]
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    details = report.read_details(tmp_path)
    assert len(details.worst) == len(details.best) == NUM_EXAMPLES
    stored = StoredEvaluation(score.evaluation, details, "test masks", datetime.now(UTC))
    sections = report.sections({"test": stored})
    assert [section.title for section in sections] == ["Results", "Confusion matrix", "Images"]
    text = "".join(str(part) for section in sections for part in section.parts)
    assert "No pixel of the test images has, or is predicted as, car" in text
    assert "sky" in text
    assert report.highlights(score.evaluation)["mIoU"]
    assert "mIoU" in report.card_summary(score.evaluation)


def make_prediction(path: str, labels: Tensor | None) -> ImageSegmentation:
    error = "broken" if labels is None else None
    return ImageSegmentation.of(Path(path), labels, error, INFO)


def test_label_images_have_the_numbers_of_the_data_set(tmp_path: Path) -> None:
    labels = predicted(Pictures(1).target(0), 4).labels
    labels[0, 0] = 2
    writer = SegmentationWriter(tmp_path / "out", INFO, overwrite=False)
    for path in ("a/x.jpg", "b/x.png"):
        writer.add(make_prediction(path, labels), lambda: Pictures(1)[0].image)
    writer.add(make_prediction("c.jpg", None), lambda: pytest.fail("there is no picture"))
    writer.finish()
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [
        "predictions.json",
        "x-2.labels.png",
        "x-2.overlay.jpg",
        "x.labels.png",
        "x.overlay.jpg",
    ]
    with Image.open(tmp_path / "out" / "x.labels.png") as opened:
        assert opened.mode == "L"
        values = np.array(opened)
    assert INFO.masks is not None
    expected = np.array(INFO.masks.values)[labels.numpy()]
    assert np.array_equal(values, expected)
    records = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert sum(each["area"] for each in records[0]["classes"]) == pytest.approx(1, abs=1e-5)
    assert records[0]["files"] == ["x.labels.png", "x.overlay.jpg"]
    assert records[2]["error"] == "broken"
    with Image.open(tmp_path / "out" / "x.overlay.jpg") as opened:
        assert opened.width == SIZE[1]
        assert opened.height > SIZE[0]


def test_places_in_use_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PacavitError, match="is a file"):
        SegmentationWriter(tmp_path / "file", INFO, overwrite=True)
    with pytest.raises(PacavitError, match="not empty; give --overwrite"):
        SegmentationWriter(tmp_path, INFO, overwrite=False)
    SegmentationWriter(tmp_path, INFO, overwrite=True)


def test_areas_are_shown_on_the_console() -> None:
    labels = torch.zeros(4, 4, dtype=torch.uint8)
    labels[0] = 2
    table = make_prediction("a.png", labels).__rich__()
    assert table.row_count == 2
    assert replace(make_prediction("a.png", labels), error="x").to_dict()["error"] == "x"
