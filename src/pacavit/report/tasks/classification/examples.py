"""Images that a classifier predicts correctly and incorrectly, with its most probable classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from pacavit.engine.scoring import SplitScore
from pacavit.report.explanation.heatmaps import Heatmaps
from pacavit.report.explanation.mistakes import ImageLinks
from pacavit.report.tasks.classification.observe import TopClasses
from pacavit.tasks.classification import ClassProbability
from pacavit.utils import pictures

__all__ = [
    "NUM_CONFUSIONS",
    "NUM_EXAMPLES",
    "Confusion",
    "Example",
    "Examples",
    "choose_confusions",
    "choose_examples",
    "choose_few",
    "choose_mistakes",
    "pick_examples",
]

NUM_EXAMPLES = 12
"""Largest number of images of either kind."""

NUM_CONFUSIONS = 10
"""Pairs of classes."""

_FEW, _FEW_WRONG = 6, 3  # images with heatmaps, and how many of them are incorrect
_MISTAKES = 16  # images that are explained on a page of their own
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
        name: of the image; empty in evaluations of earlier versions.
    """

    index: int
    label: str
    guesses: tuple[ClassProbability, ...]
    png: str
    name: str = ""


@dataclass(frozen=True)
class Confusion:
    """The most probable mistake of those that take one class for another.

    Attributes:
        label: name of the true class.
        predicted: name of the predicted class.
        index: position of the image in the split.
        name: of the image.
    """

    label: str
    predicted: str
    index: int
    name: str


@dataclass(frozen=True)
class Examples:
    """Example images of an evaluation.

    Attributes:
        right: a sample of the correct images, whose top-1 class is the true class.
        wrong: the incorrect images with the highest top-1 probabilities.
        heatmaps: of a few of both kinds; None in evaluations of earlier versions.
        confusions: of the pairs of classes that are confused most often, the most frequent first.
        links: files of some of the images, by position.
    """

    right: tuple[Example, ...]
    wrong: tuple[Example, ...]
    heatmaps: Heatmaps | None = None
    confusions: tuple[Confusion, ...] = ()
    links: Mapping[int, ImageLinks] = field(default_factory=dict)


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


def choose_confusions(top: TopClasses, num: int = NUM_CONFUSIONS) -> Tensor:
    """Rows of ``top``: of each of the most frequent confusions its most probable mistake."""
    predicted = top.classes[:, 0]
    misses = (predicted != top.labels).nonzero()[:, 0]
    surest = misses[top.probabilities[misses, 0].argsort(descending=True, stable=True)]
    pairs = torch.stack([top.labels[surest], predicted[surest]], 1)
    found, pair_of, counts = pairs.unique(dim=0, return_inverse=True, return_counts=True)
    most = counts.argsort(descending=True, stable=True)[:num].tolist()
    firsts = [int((pair_of == pair).nonzero()[0]) for pair in most]
    return surest[firsts] if len(found) else surest


def choose_mistakes(top: TopClasses) -> list[int]:
    """Positions of the mistakes to explain: the most probable ones, and frequent confusions."""
    wrong, confused = choose_examples(top).wrong, choose_confusions(top)
    rows = list(dict.fromkeys([*wrong.tolist(), *confused.tolist()]))[:_MISTAKES]
    positions: list[int] = top.indices[rows].tolist()
    return positions


def pick_examples(
    score: SplitScore,
    top: TopClasses,
    heatmaps: Heatmaps | None = None,
    links: Mapping[int, ImageLinks] | None = None,
) -> Examples:
    """The chosen images of a scored split, with thumbnails."""
    names = [row.name for row in score.evaluation.per_class]
    right, wrong = (_examples(score, top, rows, names) for rows in choose_examples(top))
    confusions = []
    for row in choose_confusions(top).tolist():
        label, predicted = names[int(top.labels[row])], names[int(top.classes[row, 0])]
        index = int(top.indices[row])
        confusions.append(Confusion(label, predicted, index, score.image_name(index)))
    return Examples(right, wrong, heatmaps, tuple(confusions), links or {})


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
        name = score.image_name(index)
        found.append(Example(index, names[label], tuple(guesses), picture, name))
    return tuple(found)


def _thumbnail(image: Tensor) -> str:
    """(3, H, W) uint8 -> base64 of a PNG file with sides of at most ``_MAX_SIDE`` pixels."""
    picture = pictures.pillow_image(image)
    picture.thumbnail((_MAX_SIDE, _MAX_SIDE))
    return pictures.base64_text(pictures.png_bytes(pictures.from_pillow(picture)))
