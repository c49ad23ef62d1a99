"""What a run found before it starts: classes, images, network and device, as lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from pacavit.data import (
    DataInfo,
    FileImages,
    ImageSet,
    LabeledImages,
    MaskedImages,
    MaskFiles,
    MaskStatistics,
    ObjectFiles,
    ObjectImages,
    ObjectStatistics,
    Split,
)
from pacavit.recipes.schema import Recipe
from pacavit.utils.text import first_few

__all__ = ["describe_data", "describe_training"]

_MOST_CLASSES = 20  # in a table; of more, the rarest and the most frequent ones are named
_NAMED = 3
_MOST_SIZES = 500  # images whose headers are read
_MOSTLY = 0.5
_IMBALANCE = 3.0  # times as many training images of one class as of another
_NAME_WIDTH = 40
_InFiles = FileImages | MaskFiles | ObjectFiles
_REMEDY = "train.class_weights=balanced gives classes the same weight"
_PIXEL_REMEDY = "train.class_weights=balanced weighs them by median frequency"


def describe_data(
    recipe: Recipe,
    info: DataInfo,
    loaded: Mapping[Split, ImageSet],
    files: Mapping[Split, ImageSet | None],
) -> list[str]:
    """Lines with images, pixels or objects per class and split, imbalance, and sizes of images.

    Args:
        recipe: of the run.
        info: of the data.
        loaded: images by split.
        files: images in files by split; None where there are none, or they are not known without
            reading them.
    """
    test = files.get("test")
    splits = dict(loaded) if test is None else {**loaded, "test": test}
    height, width = recipe.task.input_size(info.image_size)
    stored_height, stored_width = info.image_size
    masks = {
        split: images.statistics
        for split, images in loaded.items()
        if isinstance(images, MaskedImages)
    }
    objects = {
        split: images.statistics
        for split, images in splits.items()
        if isinstance(images, ObjectImages)
    }
    crops = masks or getattr(recipe.task, "crop_size", None) is not None
    what = "crops in training" if crops else "network input"
    lines = [
        f"data: {info.version}; stored with {stored_width} x {stored_height} pixels, "
        f"{what} {width} x {height}"
    ]
    counts = {split: _per_class(images, len(info.class_names)) for split, images in splits.items()}
    known = {split: count for split, count in counts.items() if count is not None}
    numbers = [f"{len(images):,} {split}" for split, images in splits.items()]
    lines.append(f"images: {', '.join(numbers)}")
    lines += _sizes(files.get("train"), None if masks or objects else (height, width))
    weighted = recipe.train.class_weights is not None
    if masks:
        return lines + _describe_masks(info.class_names, masks, weighted=weighted)
    if objects:
        return lines + _describe_objects(info.class_names, objects)
    if len(info.class_names) <= _MOST_CLASSES and known:
        lines += _table(
            info.class_names,
            [(split, [f"{count:,}" for count in column]) for split, column in known.items()],
        )
    if "train" in known:
        remedy = "" if weighted else f"; {_REMEDY}"
        lines += _imbalance(info.class_names, known["train"], "images", remedy)
    return lines


def _describe_masks(
    names: Sequence[str], splits: Mapping[Split, MaskStatistics], *, weighted: bool
) -> list[str]:
    """Lines with the pixels and images of each class, the imbalance, and unlabeled pixels."""
    lines = []
    if len(names) <= _MOST_CLASSES:
        columns: list[tuple[str, list[str]]] = []
        for split, counts in splits.items():
            fractions = counts.pixels / counts.pixels.sum()
            columns += [
                (f"{split} pixels", [f"{fraction:.2%}" for fraction in fractions.tolist()]),
                ("images", [f"{number:,}" for number in counts.images.tolist()]),
            ]
        lines += _table(names, columns)
    if "train" in splits:
        remedy = "" if weighted else f"; {_PIXEL_REMEDY}"
        lines += _imbalance(names, splits["train"].pixels.tolist(), "pixels", remedy)
    unlabeled = [
        f"{counts.unlabeled / (counts.unlabeled + int(counts.pixels.sum())):.2%} of {split}"
        for split, counts in splits.items()
    ]
    if any(counts.unlabeled for counts in splits.values()):
        lines.append(f"unlabeled pixels, in no loss and no score: {', '.join(unlabeled)}")
    for split, counts in splits.items():
        if counts.empty:
            lines.append(
                f"{split} images without a labeled pixel: {len(counts.empty):,}, "
                f"{first_few(counts.empty)}"
            )
    return lines


def _describe_objects(names: Sequence[str], splits: Mapping[Split, ObjectStatistics]) -> list[str]:
    """Lines with the objects and images of each class, their sizes, and what has no objects."""
    lines = []
    if len(names) <= _MOST_CLASSES:
        columns: list[tuple[str, list[str]]] = []
        for split, counts in splits.items():
            columns += [
                (f"{split} objects", [f"{number:,}" for number in counts.objects.tolist()]),
                ("images", [f"{number:,}" for number in counts.images.tolist()]),
            ]
        lines += _table(names, columns)
    if "train" in splits:
        lines += _imbalance(names, splits["train"].objects.tolist(), "objects", "")
    for split, counts in splits.items():
        num, sides = len(counts.sides), counts.sides
        if num == 0:
            continue
        low, middle, high = (float(sides[(num - 1) * tenth // 10]) for tenth in (1, 5, 9))
        noun = "object" if num == 1 else "objects"
        lines.append(
            f"{split}: {num:,} {noun}, at most {counts.most:,} in an image; size (square root of "
            f"the area) {middle:.0f} pixels in the median, 80 % from {low:.0f} to {high:.0f}"
        )
    for what, found in (
        ("images without objects", {split: counts.empty for split, counts in splits.items()}),
        (
            "crowd regions, never learned from, predictions in them do not count",
            {split: counts.crowds for split, counts in splits.items()},
        ),
    ):
        if any(found.values()):
            numbers = [f"{number:,} {split}" for split, number in found.items()]
            lines.append(f"{what}: {', '.join(numbers)}")
    return lines


def describe_training(
    recipe: Recipe, num_parameters: int, device: torch.device, steps_per_epoch: int, processes: int
) -> list[str]:
    """Lines with the network, the device and the number of steps.

    Args:
        recipe: of the run.
        num_parameters: of the network.
        device: of this process.
        steps_per_epoch: optimizer steps in an epoch.
        processes: of the run.
    """
    train = recipe.train
    place = str(device)
    if device.type == "cpu":
        threads = torch.get_num_threads()
        place += f" ({threads} {'thread' if threads == 1 else 'threads'})"
    if processes > 1:
        place += f", {processes} processes"
    return [
        f"model: {recipe.model.name}, {num_parameters:,} parameters, on {place}, {train.precision}",
        f"training: {train.epochs} {'epoch' if train.epochs == 1 else 'epochs'} of "
        f"{steps_per_epoch} steps of {train.batch_size} images",
    ]


def _per_class(images: ImageSet, num_classes: int) -> list[int] | None:
    """Number of images of each class; None if their targets are no labels."""
    if not isinstance(images, LabeledImages):
        return None
    labels = images.labels
    counts = labels.bincount(minlength=num_classes) if labels.ndim == 1 else labels.sum(0)
    return [int(count) for count in counts.tolist()]


def _sizes(files: ImageSet | None, size: tuple[int, int] | None) -> list[str]:
    """A line with the sizes of image files, and how many are enlarged for the network.

    Args:
        files: training images; sizes are known of sets in files only.
        size: height and width of the network's input; None if images are not enlarged to it.
    """
    found = files.sample_sizes(_MOST_SIZES) if isinstance(files, _InFiles) else []
    if not found:
        return []
    sides = sorted(min(each) for each in found)
    longest = max(max(each) for each in found)
    line = (
        f"sizes: shorter sides of {sides[0]} to {sides[-1]} pixels, median "
        f"{sides[len(sides) // 2]}; longest side {longest}"
    )
    if size is None:
        return [line]
    small = sum(side < min(size) for side in sides) / len(sides)
    if small:
        line += f"; {small:.0%} of the images are enlarged to {size[1]} x {size[0]}"
    if small > _MOSTLY:
        line += ", and a lower task.image_size would cost less"
    return [line]


def _table(names: Sequence[str], columns: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    """A row for each class, with its texts in columns, each a title and a text per class."""
    shown = [
        name if len(name) <= _NAME_WIDTH else name[: _NAME_WIDTH - 3] + "..." for name in names
    ]
    header = ["class", *(title for title, _ in columns)]
    rows = [[name, *(texts[label] for _, texts in columns)] for label, name in enumerate(shown)]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    return [
        "  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
        for row in [header, *rows]
    ]


def _imbalance(names: Sequence[str], counts: Sequence[int], what: str, remedy: str) -> list[str]:
    """Lines about classes with many or few training images or pixels, and a remedy at the end."""
    order = sorted(range(len(names)), key=lambda label: counts[label])
    few, many = counts[order[0]], counts[order[-1]]
    lines = []
    if len(names) > _MOST_CLASSES:
        ends = (("fewest", order[:_NAMED]), ("most", order[: -_NAMED - 1 : -1]))
        texts = [
            f"{word}: {', '.join(f'{names[label]} {counts[label]:,}' for label in labels)}"
            for word, labels in ends
        ]
        lines.append(f"  {len(names):,} classes; training {what}, {'; '.join(texts)}")
    if few and many >= _IMBALANCE * few:
        lines.append(
            f"imbalance: {names[order[-1]]} has {many / few:.0f} times as many training {what} as "
            f"{names[order[0]]}{remedy}"
        )
    return lines
