"""Files that lead from the mistakes of an evaluation to the images and their explanations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import torch
from rich.progress import track

from pacavit.engine.scoring import SplitScore
from pacavit.engine.weights.load import LoadedModel
from pacavit.errors import PacavitError
from pacavit.explain import ImageExplanation, explain_split
from pacavit.report.explanation.classification import explorer_page
from pacavit.report.explanation.heatmaps import class_label
from pacavit.utils.pictures import png_bytes

__all__ = ["MISTAKES", "PICTURES", "ImageLinks", "MistakeFiles", "mistake_files"]

MISTAKES = "mistakes.html"
PICTURES = "mistake-[0-9][0-9].*"
"""Pattern of the names of the images."""
_MAX_BYTES = 20 * 2**20
_NOTE = (
    "The incorrect images with the highest probabilities of a wrong class, highest first, then the "
    "most confident mistakes of the most frequent confusions. The maps explain the predicted class."
)


@dataclass(frozen=True)
class ImageLinks:
    """Files of one image, in the folder of the evaluation.

    Attributes:
        image: a copy of the image.
        explanation: the page with its explanation, and the anchor there; None if the model cannot
            be explained.
    """

    image: str
    explanation: str | None = None


class MistakeFiles(NamedTuple):
    """What leads to the mistakes.

    Attributes:
        links: by position in the split.
        contents: of files, by name.
    """

    links: Mapping[int, ImageLinks]
    contents: Mapping[str, bytes]


def mistake_files(
    model: LoadedModel,
    score: SplitScore,
    positions: Sequence[int],
    *,
    title: str,
    device: torch.device,
    progress: bool = False,
) -> MistakeFiles:
    """Copies of images, and one page that explains them.

    Images are copied, because a page that is sent or moved with its folder should still lead to
    them, and should not name folders of a machine. An image file of more than 20 MiB, and an image
    of packed data, is saved as PNG with the size that it is stored with.

    Args:
        model: that made the mistakes.
        score: of the split.
        positions: of the images.
        title: of the page.
        device: where to compute.
        progress: show a progress bar.
    """
    if not positions:
        return MistakeFiles({}, {})
    contents, names = {}, []
    for number, position in enumerate(positions, 1):
        suffix, data = _image_file(score, position)
        names.append(f"mistake-{number:02}{suffix}")
        contents[names[-1]] = data
    try:
        explained = _explain(model, score, positions, device, progress)
        contents[MISTAKES] = explorer_page(title, explained, _NOTE).encode()
    except PacavitError:
        return MistakeFiles(dict(zip(positions, map(ImageLinks, names), strict=True)), contents)
    links = {
        position: ImageLinks(name, f"{MISTAKES}#image-{number}")
        for number, (position, name) in enumerate(zip(positions, names, strict=True), 1)
    }
    return MistakeFiles(links, contents)


def _image_file(score: SplitScore, position: int) -> tuple[str, bytes]:
    """The suffix and the bytes of a file with the image."""
    images, file = score.images, score.images.file(position)
    if file is not None and images.root is not None:
        path = images.root / file
        with suppress(OSError):  # it may have been moved since it was read into memory
            if path.stat().st_size <= _MAX_BYTES:
                return path.suffix.lower(), path.read_bytes()
    return ".png", png_bytes(images[position].image.cpu())


def _explain(
    model: LoadedModel,
    score: SplitScore,
    positions: Sequence[int],
    device: torch.device,
    progress: bool,
) -> Iterator[tuple[ImageExplanation, str]]:
    names = model.info.class_names
    for position in track(positions, "explaining", disable=not progress, transient=True):
        [explanation] = explain_split(
            model, score.images, [position], device=device, name=score.image_name
        )
        yield explanation, class_label(score.images.target(position), names)
