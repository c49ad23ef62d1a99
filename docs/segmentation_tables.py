"""The tables on segmentation, from ``camvid.json`` and ``segmentation_speed.json``.

Runs take hours and are recorded when somebody has run them; until then a line stands in place of a
table.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from result_tables import RESULTS, named_table, record

from pacavit.report.markdown import table

MISSING = "Not measured yet."
_TITLES = {
    "camvid_nano_paca": "nano, PaCa head",
    "camvid_nano_upernet": "nano, UperNet",
    "model.name=resnet18": "ResNet-18 from random weights, PaCa head",
    "model.name=tf_efficientnet_lite0": "EfficientNet-Lite0 with ImageNet weights, PaCa head",
    "task.network=lraspp_mobilenet_v3_large": "LR-ASPP, MobileNetV3, from random weights",
    "task.network=deeplabv3_mobilenet_v3_large": "DeepLabV3, MobileNetV3, from random weights",
}


def _runs() -> list[Any]:
    """The recorded runs; none if there is no record."""
    return record("camvid") if (RESULTS / "camvid.json").is_file() else []


def _title(run: Any) -> str:
    """What a run trained, from its command."""
    words = run["commands"][0].split()
    found = [title for key, title in _TITLES.items() if key in words]
    title = found[-1] if found else words[2]
    seed = run["seed"]
    return title if seed == 0 else f"{title}, seed {seed}"


def _main_runs() -> list[Any]:
    """The runs with the long recipes."""
    return [run for run in _runs() if "_short" not in run["commands"][0]]


@named_table("camvid")
def camvid() -> str:
    """Networks with their cost and their scores on the test images."""
    runs = _main_runs()
    if not runs:
        return MISSING
    rows = [
        [
            _title(run),
            f"{run['parameters'] / 1e6:.2f}",
            f"{run['macs'] / 1e9:.2f}",
            f"{run['training_minutes']:.0f}",
            *(
                f"{run['test'][name]:.4f}" if name in run["test"] else ""
                for name in ("mIoU", "pixel_accuracy", "boundary_IoU", "clusters_mIoU")
            ),
        ]
        for run in runs
    ]
    header = [
        "",
        "M parameters",
        "GMAC",
        "minutes",
        "mIoU",
        "pixel accuracy",
        "boundary IoU",
        "mIoU of the clusters alone",
    ]
    return table(header, rows)


@named_table("camvid-classes")
def camvid_classes() -> str:
    """IoU of each class on the test images."""
    runs = _main_runs()
    if not runs:
        return MISSING
    names = [row["name"] for row in runs[0]["test"]["per_class"]]
    rows = [
        [name, *(_iou(run["test"]["per_class"][place]) for run in runs)]
        for place, name in enumerate(names)
    ]
    return table(["class", *map(_title, runs)], rows)


def _iou(row: Any) -> str:
    return "" if row["iou"] is None else f"{row['iou']:.3f}"


@named_table("camvid-starts")
def camvid_starts() -> str:
    """The short recipe from random weights and from CIFAR-10 weights, over seeds."""
    kinds: dict[str, list[float]] = {}
    for run in _runs():
        command = run["commands"][0]
        if "_short" in command and "model.clustering" not in command:
            start = "random weights" if "model.init=null" in command else "CIFAR-10 weights"
            kinds.setdefault(start, []).append(run["test"]["mIoU"])
    return _spread_table("start", kinds)


@named_table("camvid-clusterings")
def camvid_clusterings() -> str:
    """The short recipe with each clustering in the backbone."""
    kinds: dict[str, list[float]] = {}
    for run in _runs():
        command = run["commands"][0]
        if "_short" in command and "model.clustering=" in command:
            name = command.partition("model.clustering=")[2].split()[0]
            kinds.setdefault(f"`{name}`", []).append(run["test"]["mIoU"])
    return _spread_table("clustering", kinds)


def _spread_table(heading: str, kinds: dict[str, list[float]]) -> str:
    """Mean and standard deviation over seeds of the mIoU, by kind."""
    if not kinds:
        return MISSING
    rows = [
        [kind, str(len(values)), f"{statistics.mean(values):.4f}", _deviation(values)]
        for kind, values in kinds.items()
    ]
    return table([heading, "seeds", "mIoU", "standard deviation over seeds"], rows)


def _deviation(values: Sequence[float]) -> str:
    return f"{statistics.stdev(values):.4f}" if len(values) > 1 else ""


@named_table("segmentation-speed")
def segmentation_speed() -> str:
    """Images per second of segmentation networks, by turns."""
    return speed_table("segmentation_speed", "network", "DeepLabV3", form="`{}`")


def speed_table(name: str, heading: str, reference: str, *, form: str = "{}") -> str:
    """The table of a record of speeds, whose ratios are to the reference's.

    Args:
        name: of the record.
        heading: of the column of the networks.
        reference: what the ratios are to.
        form: of the networks' names.
    """
    if not (RESULTS / f"{name}.json").is_file():
        return MISSING
    rows = [
        [
            form.format(row["network"]),
            row["kind"],
            row["precision"],
            str(row["batch_size"]),
            f"{row['images_per_second'][1]:.1f}",
            "{1:.2f} ({0:.2f} to {2:.2f})".format(*row["ratio"]),
        ]
        for row in record(name)["rows"]
    ]
    return table(
        [heading, "", "precision", "batch", "images/s", f"of {reference}'s (quartiles)"], rows
    )
