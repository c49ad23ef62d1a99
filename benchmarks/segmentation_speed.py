"""Images per second of segmentation networks side by side: inference, and steps of training.

::

    python benchmarks/segmentation_speed.py

The PaCa head and UperNet on nano, and torchvision's LR-ASPP and DeepLabV3 with MobileNetV3, all
with 11 classes at 480 x 360 pixels. They take turns, one batch each in every round, so that changes
of the machine's speed affect all of them equally. A figure is the median over the rounds with its
quartiles; ``ratio`` is the median over the rounds of DeepLabV3's time over this network's. The
result goes to ``benchmarks/results/segmentation_speed.json``. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from figures import compare_speed, inference, training_step
from torchvision_segmentation import TorchvisionConfig, TorchvisionSegmentation

from pacavit import recipes
from pacavit.data import Batch, DataInfo
from pacavit.engine import build, system
from pacavit.engine.run.environment import environment
from pacavit.models import count_macs
from pacavit.tasks.segmentation import SegmentationTask

RESULTS = Path(__file__).parent / "results" / "segmentation_speed.json"
SIZE, CLASSES = (360, 480), 11
INFO = DataInfo(
    "camvid", "random pixels", tuple(map(str, range(CLASSES))), SIZE, (0.5,) * 3, (0.2,) * 3
)
OURS = ("camvid_nano_paca", "camvid_nano_upernet")
PEERS = ("lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large")


def main() -> None:
    """Read the command line, measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    arguments = parser.parse_args()
    device = system.pick_device("auto")
    system.configure(device)
    result: dict[str, Any] = {
        "command": "python benchmarks/segmentation_speed.py",
        "size": SIZE,
        "rounds": arguments.rounds,
        "load_before": os.getloadavg()[0],
        "networks": {
            name: {
                "parameters": sum(each.numel() for each in task.model.parameters()),
                "macs": count_macs(task.model.eval(), SIZE),
            }
            for name, task in tasks(device).items()
        },
        "rows": [],
    }
    for precision in system.PRECISIONS:
        for size in arguments.batch_sizes:
            rows = compare(size, precision, "inference", device, arguments)
            result["rows"].extend(rows)
        result["rows"].extend(compare(4, precision, "training", device, arguments))
    result["load_after"] = os.getloadavg()[0]
    result["environment"] = environment(device)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def tasks(device: torch.device) -> dict[str, SegmentationTask]:
    """The networks with their losses, by name."""
    found: dict[str, SegmentationTask] = {}
    for name in OURS:
        task = build.task(recipes.load(name), INFO)
        assert isinstance(task, SegmentationTask)
        found[name] = task.to(device)
    for name in PEERS:
        config = TorchvisionConfig.model_validate({"network": name})
        peer = TorchvisionSegmentation.build(
            config, INFO, build.Networks(recipes.load(OURS[0]).model)
        )
        found[name] = peer.to(device, memory_format=torch.channels_last)
    return found


def compare(
    batch_size: int, precision: str, kind: str, device: torch.device, arguments: Any
) -> list[dict[str, Any]]:
    """Rows with the speed of each network, for one batch size."""
    torch.manual_seed(0)
    images = torch.randn(batch_size, 3, *SIZE, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    masks = torch.randint(0, CLASSES, (batch_size, *SIZE), dtype=torch.uint8, device=device)
    batch = Batch(images, masks, torch.arange(batch_size))
    clip = recipes.load(OURS[0]).train.clip
    steps: dict[str, Callable[[], object]] = {}
    for name, task in tasks(device).items():
        training = kind == "training"
        task.train(training)
        steps[name] = (
            training_step(task, batch, clip) if training else inference(task.logits, images)
        )
    facts = {"kind": kind, "precision": precision, "batch_size": batch_size}
    return compare_speed(steps, arguments, facts, device)


if __name__ == "__main__":
    main()
