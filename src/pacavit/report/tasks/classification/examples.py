"""Images that a classifier predicts correctly and incorrectly, with its most probable classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pacavit.engine.scoring import SplitScore
from pacavit.report.explanation.heatmaps import Heatmaps
from pacavit.report.tasks.classification.observe import TopClasses
from pacavit.tasks.classification import ClassProbability
from pacavit.utils import pictures

__all__ = ["NUM_EXAMPLES", "Example", "Examples", "choose_examples", "choose_few", "pick_examples"]

NUM_EXAMPLES = 12
"""Largest number of images of either kind."""

_FEW, _FEW_WRONG = 6, 3  # images with heatmaps, and how many of them are incorrect
_MAX_SIDE = 128  # pixels of a thumbnail


@dataclass(frozen=True)
class Example:
    """One image and its most probable classes.

    Attributes:
        index: position in the split.
        label: name of the true class.
        guesses: the most probable classes, in descending order, and the true class if it is not
            among them.
        png: thumbnail, base64 of a PNG file.
    """

    index: int
    label: str
    guesses: tuple[ClassProbability, ...]
    png: str


@dataclass(frozen=True)
class Examples:
    """Example images of an evaluation.

    Attributes:
        right: a sample of the correct images, whose top-1 class is the true class.
        wrong: the incorrect images with the highest top-1 probabilities.
        heatmaps: of a few of both kinds; None in evaluations of earlier versions.
    """

    right: tuple[Example, ...]
    wrong: tuple[Example, ...]
    heatmaps: Heatmaps | None = None


class _Choice(NamedTuple):
    right: Tensor
    wrong: Tensor


def choose_examples(top: TopClasses, num: int = NUM_EXAMPLES) -> _Choice:
    """Choose rows of ``top`` to show, up to ``num`` of either kind; deterministic.

    Returns:
        ``right``: evenly spread over the correct images; ``wrong``: the incorrect ones with the
        highest top-1 probabilities, highest first.
    """
    correct = top.classes[:, 0] == top.labels
    hits, misses = correct.nonzero()[:, 0], (~correct).nonzero()[:, 0]
    spread = torch.linspace(0, len(hits) - 1, min(num, len(hits))).round().long()
    surest = top.probabilities[misses, 0].argsort(descending=True, stable=True)
    return _Choice(hits[spread], misses[surest[:num]])


def choose_few(top: TopClasses) -> list[int]:
    """Positions in the split of the images with heatmaps: correct ones, then incorrect ones."""
    wrong = choose_examples(top, _FEW_WRONG).wrong
    right = choose_examples(top, _FEW - len(wrong)).right
    positions: list[int] = top.indices[torch.cat([right, wrong])].tolist()
    return positions


def pick_examples(score: SplitScore, top: TopClasses, heatmaps: Heatmaps | None = None) -> Examples:
    """The chosen images of a scored split, with thumbnails."""
    names = [row.name for row in score.evaluation.per_class]
    right, wrong = (_examples(score, top, rows, names) for rows in choose_examples(top))
    return Examples(right, wrong, heatmaps)


def _examples(
    score: SplitScore, all_top: TopClasses, rows: Tensor, names: Sequence[str]
) -> tuple[Example, ...]:
    top = TopClasses(*(values[rows] for values in all_top))
    found = []
    for row, index in enumerate(top.indices.tolist()):
        label = int(top.labels[row])
        pairs = zip(top.classes[row].tolist(), top.probabilities[row].tolist(), strict=True)
        guesses = [ClassProbability(names[guess], value) for guess, value in pairs]
        if label not in top.classes[row]:
            guesses.append(ClassProbability(names[label], float(top.true_probabilities[row])))
        picture = _thumbnail(score.images[index].image.cpu())
        found.append(Example(index, names[label], tuple(guesses), picture))
    return tuple(found)


def _thumbnail(image: Tensor) -> str:
    """(3, H, W) uint8 -> base64 of a PNG file with sides of at most ``_MAX_SIDE`` pixels."""
    picture = pictures.pillow_image(image)
    picture.thumbnail((_MAX_SIDE, _MAX_SIDE))
    return pictures.base64_text(pictures.png_bytes(pictures.from_pillow(picture)))
