"""How time and memory of feature maps grow with the image, for backbones side by side.

::

    python benchmarks/feature_growth.py

Batch 1, inference, fp32, square images from 224 to 1024 pixels. The time of a pixel is compared
with that at 224 pixels in the same round, in which every backbone computes every size once; figures
are medians over the rounds with quartiles. Peak memory is what the process holds at most during a
forward pass, beyond what it held before, each in a process of its own (Linux only). For PaCa-ViT, a
profile divides the time of a pixel among kinds of operations. The result goes to
``benchmarks/results/feature_growth.json``. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from pacavit.bench.memory import RELEASE, PeakMemory
from pacavit.bench.turns import quartiles
from pacavit.engine import system
from pacavit.engine.run.environment import environment
from pacavit.models import Pyramid, build_pyramid, count_macs

RESULTS = Path(__file__).parent / "results" / "feature_growth.json"
SIZES = (224, 320, 512, 768, 1024)
LINEAR = "pacavit_small, 100 clusters in all stages"
BACKBONES: dict[str, dict[str, Any]] = {
    "pacavit_small": {},
    LINEAR: {"num_clusters": 100},
    "pvt_v2_b2": {},
    "pvt_v2_b2_li": {},
    "swin_tiny_patch4_window7_224": {},
    "convnext_tiny": {},
    "resnet50": {},
}
PROFILED = ("pacavit_small", LINEAR)
# The first pattern that a name of an operation matches says its kind.
KINDS = {
    "convolution": r"conv",
    "attention": r"attention|softmax|bmm|baddbmm",
    "linear layers": r"linear|addmm|::mm",
    "norms": r"norm",
    "activations": r"gelu|relu|sigmoid",
    "copies and layout": r"copy|clone|contiguous|reorder|cat|_to|empty|resize|fill|zero|slice|pad",
}


def main() -> None:
    """Read the command line, measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--memory-of", nargs=2, metavar=("NAME", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    system.configure(torch.device("cpu"))
    if arguments.memory_of:
        name, size = arguments.memory_of
        print(peak_memory(name, int(size)))  # noqa: T201
        return
    load = os.getloadavg()[0]
    seconds = measure(arguments.sizes, arguments.rounds)
    result: dict[str, Any] = {
        "command": f"python benchmarks/feature_growth.py --rounds {arguments.rounds}",
        "sizes": arguments.sizes,
        "rounds": arguments.rounds,
        "load_before": load,
        "backbones": {name: rows(name, seconds[name], arguments.sizes) for name in BACKBONES},
        "nanoseconds_per_pixel_by_kind": {
            name: {size: profiled(name, size) for size in (min(SIZES), max(SIZES))}
            for name in PROFILED
        },
        "load_after": os.getloadavg()[0],
        "environment": environment(torch.device("cpu")),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


def backbone(name: str) -> Pyramid:
    """A backbone of the table, in evaluation mode."""
    pyramid = build_pyramid(name.partition(",")[0], **BACKBONES[name])
    return pyramid.eval().to(memory_format=torch.channels_last)


def picture(size: int) -> torch.Tensor:
    """One image of random pixels."""
    torch.manual_seed(0)
    return torch.randn(1, 3, size, size).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def measure(sizes: list[int], rounds: int) -> dict[str, list[list[float]]]:
    """Seconds of a forward pass by backbone, round and size; a first round is left out."""
    backbones = {name: backbone(name) for name in BACKBONES}
    pictures = [picture(size) for size in sizes]
    seconds: dict[str, list[list[float]]] = {name: [] for name in backbones}
    for number in range(rounds + 1):
        for name, pyramid in backbones.items():
            row = []
            for images in pictures:
                start = time.perf_counter()
                pyramid(images)
                row.append(time.perf_counter() - start)
            if number:
                seconds[name].append(row)
        print(f"round {number} of {rounds}", flush=True)  # noqa: T201
    return seconds


def rows(name: str, seconds: list[list[float]], sizes: list[int]) -> list[dict[str, Any]]:
    """Time, growth and memory of a backbone by size."""
    found = []
    pyramid = backbone(name)
    macs = [count_macs(pyramid, (size, size)) / size**2 for size in sizes]
    for column, size in enumerate(sizes):
        pixels = (size / sizes[0]) ** 2
        row = {
            "size": size,
            "milliseconds": quartiles([1000 * each[column] for each in seconds]),
            "time_of_a_pixel": quartiles([each[column] / each[0] / pixels for each in seconds]),
            "macs_of_a_pixel": round(macs[column] / macs[0], 4),
            "peak_mebibytes": memory_apart(name, size),
        }
        found.append(row)
        print(json.dumps({"backbone": name, **row}), flush=True)  # noqa: T201
    return found


def memory_apart(name: str, size: int) -> float:
    """``peak_memory`` in a new process."""
    command = [sys.executable, __file__, "--memory-of", name, str(size)]
    environ = {**os.environ, **RELEASE}
    done = subprocess.run(  # noqa: S603
        command, check=True, capture_output=True, text=True, env=environ
    )
    return float(done.stdout.split()[-1])


@torch.inference_mode()
def peak_memory(name: str, size: int) -> float:
    """Mebibytes that a forward pass needs at most, beyond what the process held before it."""
    pyramid, images = backbone(name), picture(size)
    pyramid(picture(64))  # what is allocated once, such as buffers of libraries
    memory = PeakMemory(torch.device("cpu"))
    pyramid(images)
    return memory.mebibytes()


@torch.inference_mode()
def profiled(name: str, size: int, repeats: int = 3) -> dict[str, float]:
    """Nanoseconds of a pixel by kind of operation; times of single operations, without overlap."""
    pyramid, images = backbone(name), picture(size)
    pyramid(images)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as found:
        for _ in range(repeats):
            pyramid(images)
    by_kind: dict[str, float] = defaultdict(float)
    for event in found.key_averages(group_by_input_shape=True):
        kind = next((kind for kind, words in KINDS.items() if re.search(words, event.key)), "other")
        if kind == "convolution" and event.input_shapes[1][2:] == [1, 1]:
            kind = "linear layers"  # they are computed as convolutions of 1 x 1
        by_kind[kind] += 1000 * event.self_cpu_time_total / repeats / size**2
    return {kind: round(value, 2) for kind, value in sorted(by_kind.items())}


if __name__ == "__main__":
    main()
