"""The tables on detection, from ``bccd.json``, ``nuclei.json`` and the records of speeds.

Runs take hours and are recorded when somebody has run them; until then a line stands in place of a
table.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from result_tables import RESULTS, named_table, record
from segmentation_tables import MISSING, speed_table

from pacavit.report.markdown import table

_TITLES = {
    "bccd_nano": "nano, light Faster R-CNN",
    "nuclei_nano": "nano, light Mask R-CNN",
    "nuclei_nano_watershed": "nano, watershed of the PaCa head's clusters",
    "task.detector=fcos": "nano, FCOS",
    "task.detector=torchvision_faster_rcnn": "torchvision's Faster R-CNN, MobileNetV3",
    "task.detector=torchvision_mask_rcnn": "torchvision's Mask R-CNN, MobileNetV3",
}


def _recorded(name: str) -> Any:
    """A record; None if there is none yet."""
    return record(name) if (RESULTS / f"{name}.json").is_file() else None


def _title(command: str, seed: int = 0) -> str:
    """What a run trained, from its command."""
    words = command.split()
    found = [title for key, title in _TITLES.items() if key in words]
    title = found[-1] if found else words[2]
    return title if seed == 0 else f"{title}, seed {seed}"


def _runs(name: str, scores: Sequence[tuple[str, str]]) -> str:
    """Detectors with their cost and their scores on the test images."""
    runs = [run for run in _recorded(name) or () if "_short" not in run["commands"][0]]
    if not runs:
        return MISSING
    rows = [
        [
            _title(run["commands"][0], run["seed"]),
            f"{run['parameters'] / 1e6:.2f}",
            f"{run['training_minutes']:.0f}",
            *(f"{run['test'][key]:.3f}" if key in run["test"] else "" for key, _ in scores),
        ]
        for run in runs
    ]
    return table(["", "M parameters", "minutes", *(title for _, title in scores)], rows)


@named_table("bccd")
def bccd() -> str:
    """Detectors of blood cells."""
    names = ("AP", "AP50", "AP75", "AR_100")
    return _runs("bccd", [(f"box_{name}", f"box {name.replace('_', ' at ')}") for name in names])


@named_table("bccd-classes")
def bccd_classes() -> str:
    """AP50 of each class of blood cells."""
    runs = [run for run in _recorded("bccd") or () if "_short" not in run["commands"][0]]
    if not runs:
        return MISSING
    names = [row["name"] for row in runs[0]["test"]["per_class"]]
    rows = [
        [name, *(f"{run['test']['per_class'][place]['AP50']:.3f}" for run in runs)]
        for place, name in enumerate(names)
    ]
    titles = [_title(run["commands"][0], run["seed"]) for run in runs]
    return table(["box AP50", *titles], rows)


@named_table("nuclei")
def nuclei() -> str:
    """Detectors of nuclei."""
    return _runs(
        "nuclei",
        [
            ("mask_AP50", "mask AP50"),
            ("mask_AP50_300", "mask AP50 at 300"),
            ("mask_AP", "mask AP"),
            ("box_AP50", "box AP50"),
        ],
    )


@named_table("touching")
def touching() -> str:
    """Nuclei that touch another one, and others."""
    found = _recorded("touching_objects")
    if found is None:
        return MISSING
    rows = [
        [
            _title(run["command"]),
            f"{run['recall_touching']:.3f}",
            f"{run['recall_others']:.3f}",
            f"{run['precision']:.3f}",
        ]
        for run in found["runs"]
    ]
    first = found["runs"][0]
    header = [
        "",
        f"recall of {first['touching']:,} that touch",
        f"recall of {first['others']:,} others",
        "precision of all",
    ]
    return table(header, rows)


@named_table("detection-starts")
def starts() -> str:
    """The short recipes from random weights and from CIFAR-10 weights, over seeds."""
    kinds: dict[tuple[str, str], list[float]] = {}
    for name, score in (("bccd", "box_AP50"), ("nuclei", "mask_AP50")):
        for run in _recorded(name) or ():
            command = run["commands"][0]
            if "_short" in command:
                start = "random weights" if "model.init=null" in command else "CIFAR-10 weights"
                kinds.setdefault((name, start), []).append(run["test"][score])
    if not kinds:
        return MISSING
    rows = [
        [
            data,
            start,
            str(len(values)),
            f"{statistics.mean(values):.3f}",
            f"{statistics.stdev(values):.3f}" if len(values) > 1 else "",
        ]
        for (data, start), values in kinds.items()
    ]
    return table(["data", "start", "seeds", "AP50", "standard deviation over seeds"], rows)


@named_table("detection-speed")
def speed() -> str:
    """Images per second of detectors, by turns."""
    return speed_table("detection_speed", "detector", "torchvision")


@named_table("feature-growth")
def growth() -> str:
    """Time of a pixel and memory, by size of the image."""
    found = _recorded("feature_growth")
    if found is None:
        return MISSING
    rows = []
    for name, sizes in found["backbones"].items():
        first, last = sizes[0], sizes[-1]
        rows.append(
            [
                name,
                f"{first['milliseconds'][1]:.0f}",
                f"{last['milliseconds'][1]:.0f}",
                "{1:.2f} ({0:.2f} to {2:.2f})".format(*last["time_of_a_pixel"]),
                f"{last['macs_of_a_pixel']:.2f}",
                f"{first['peak_mebibytes']:.0f}",
                f"{last['peak_mebibytes']:.0f}",
            ]
        )
    small, large = found["sizes"][0], found["sizes"][-1]
    header = [
        "backbone",
        f"ms at {small}",
        f"ms at {large}",
        f"time of a pixel at {large} over that at {small} (quartiles)",
        "MACs of a pixel, likewise",
        f"MiB at {small}",
        f"MiB at {large}",
    ]
    return table(header, rows)


@named_table("feature-growth-kinds")
def growth_kinds() -> str:
    """Nanoseconds of a pixel by kind of operation."""
    found = _recorded("feature_growth")
    if found is None:
        return MISSING
    rows = []
    for name, by_size in found["nanoseconds_per_pixel_by_kind"].items():
        (small, first), (large, last) = by_size.items()
        for kind in sorted(first, key=lambda kind: -first[kind]):
            values = first[kind], last.get(kind, 0)
            rows.append([name, kind, *(f"{value:.0f}" for value in values)])
    header = ["backbone", "operations", f"ns of a pixel at {small}", f"at {large}"]
    return table(header, rows)
