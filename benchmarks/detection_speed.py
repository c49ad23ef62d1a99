"""Images per second of detectors side by side: inference, and steps of training.

::

    python benchmarks/detection_speed.py

The light detectors of our recipes on nano, and torchvision's Faster and Mask R-CNN with
MobileNetV3, on pictures of random pixels with 416 x 320 (boxes) and 256 x 256 pixels (masks) and 16
objects each. They take turns, one batch each in every round, so that changes of the machine's speed
affect all of them equally. A figure is the median over the rounds with its quartiles; ``ratio`` is
the median over the rounds of the time of torchvision's detector over this one's. Results are
limited to the same number of objects, but random weights find others than trained ones, so the
times of inference are those of full lists. The result goes to
``benchmarks/results/detection_speed.json``. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision_detection  # noqa: F401  registers the peers
from figures import compare_speed, inference, training_step

from pacavit import recipes
from pacavit.data import Batch, DataInfo, ObjectInfo
from pacavit.engine import build, system
from pacavit.engine.run.environment import environment
from pacavit.tasks import Task

RESULTS = Path(__file__).parent / "results" / "detection_speed.json"
_CLIP = 1.0  # as in the recipes
OBJECTS, SIDE = 16, 24  # in each picture; their height and width in pixels


class Group(NamedTuple):
    """Detectors that are compared with each other.

    Attributes:
        size: (height, width) of the pictures.
        detectors: recipe and changes of each, by name; the last one is torchvision's.
    """

    size: tuple[int, int]
    detectors: dict[str, tuple[str, tuple[str, ...]]]


GROUPS = {
    "boxes": Group(
        (320, 416),
        {
            "light Faster R-CNN on nano": ("bccd_nano", ()),
            "FCOS on nano": (
                "bccd_nano",
                ("task.detector=fcos", "task.detector_options={channels=64,convs=2}"),
            ),
            "torchvision's Faster R-CNN on MobileNetV3": (
                "bccd_nano",
                ("task.detector=torchvision_faster_rcnn", "task.detector_options={}"),
            ),
        },
    ),
    "masks": Group(
        (256, 256),
        {
            "light Mask R-CNN on nano": ("nuclei_nano", ()),
            "watershed on nano": ("nuclei_nano_watershed", ()),
            "torchvision's Mask R-CNN on MobileNetV3": (
                "nuclei_nano",
                (
                    "task.detector=torchvision_mask_rcnn",
                    "task.detector_options={max_detections=300}",
                ),
            ),
        },
    ),
}


def main() -> None:
    """Read the command line, measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=8)
    arguments = parser.parse_args()
    device = system.pick_device("auto")
    system.configure(device)
    result: dict[str, Any] = {
        "command": "python benchmarks/detection_speed.py",
        "rounds": arguments.rounds,
        "load_before": os.getloadavg()[0],
        "parameters": {
            name: sum(each.numel() for each in task.model.parameters())
            for group in GROUPS.values()
            for name, task in tasks(group, device).items()
        },
        "rows": [
            row
            for group in GROUPS.values()
            for precision in system.PRECISIONS
            for kind, batch_size in (
                ("inference", 1),
                ("inference", arguments.batch_size),
                ("training", arguments.batch_size),
            )
            for row in compare(group, kind, batch_size, precision, device, arguments)
        ],
        "load_after": os.getloadavg()[0],
        "environment": environment(device),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def tasks(group: Group, device: torch.device) -> dict[str, Task]:
    """The detectors with their losses, by name."""
    names = ("first", "second", "third")
    info = DataInfo(
        "random",
        "random pixels",
        names,
        group.size,
        (0.5,) * 3,
        (0.2,) * 3,
        objects=ObjectInfo((1, 2, 3), ((255, 0, 0),) * 3),
    )
    return {
        name: build.task(recipes.load(recipe, list(changes)), info).to(device)
        for name, (recipe, changes) in group.detectors.items()
    }


def pictures(batch_size: int, size: tuple[int, int], device: torch.device) -> Batch:
    """Random pixels, with objects at random places."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch_size, 3, *size, generator=generator).to(device)
    targets = []
    for _ in range(batch_size):
        corners = torch.rand(OBJECTS, 2, generator=generator)
        left_top = (corners * (torch.tensor(size).flip(0) - SIDE)).floor()
        boxes = torch.cat([left_top, left_top + SIDE], 1)
        masks = torch.zeros(OBJECTS, *size, dtype=torch.bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
            mask[top:bottom, left:right] = True
        labels = torch.randint(3, (OBJECTS,), generator=generator)
        target = {"boxes": boxes, "labels": labels, "masks": masks}
        targets.append({name: value.to(device) for name, value in target.items()})
    images = images.contiguous(memory_format=torch.channels_last)
    return Batch(images, targets, torch.arange(batch_size))


def compare(
    group: Group,
    kind: str,
    batch_size: int,
    precision: str,
    device: torch.device,
    arguments: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Rows with the speed of each detector of a group."""
    torch.manual_seed(0)
    batch, training = pictures(batch_size, group.size, device), kind == "training"
    steps: dict[str, Callable[[], object]] = {}
    for name, task in tasks(group, device).items():
        task.train(training)
        steps[name] = (
            training_step(task, batch, _CLIP) if training else inference(task.model, batch.images)
        )
    facts = {
        "kind": kind,
        "precision": precision,
        "batch_size": batch_size,
        "size": group.size,
    }
    return compare_speed(steps, arguments, facts, device)


if __name__ == "__main__":
    main()
