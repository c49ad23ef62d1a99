"""Where the time of a forward pass goes, by kind of operation, before and after ``optimize``.

::

    python benchmarks/inference_profile.py pacavit_small --size 224 --batch-size 16 --precision bf16

For the network as it is built, under autocast in bf16, and for the optimized one: the fraction of
the time of convolutions (linear layers that are computed as such among them), matrix products,
attention, normalization, copies and all else; the number of operations of each kind in a pass; and
the tensors that are copied most often. Numbers of operations do not depend on what else runs;
times do. ``--out FILE`` adds them to a JSON file, in place of those of equal settings.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import pacavit  # noqa: F401  registers the models with timm
from pacavit.engine import system
from pacavit.engine.run.environment import environment
from pacavit.layers import optimize

KINDS: Mapping[str, tuple[str, ...]] = {
    "convolutions": ("convolution", "conv2d", "convolution_overrideable"),
    "matrix products": ("addmm", "mm", "bmm", "baddbmm", "linear", "matmul"),
    "attention": ("attention", "softmax"),
    "normalization": ("layer_norm", "batch_norm", "group_norm"),
    "copies": ("copy_", "clone", "contiguous"),
}
"""Words in the names of operators by kind, in the order in which they are looked for."""
REST = "the rest"


def kind_of(name: str) -> str:
    """The kind of an operator, such as "aten::copy_"."""
    plain = name.rpartition("::")[2]
    for kind, words in KINDS.items():
        exact = kind in ("matrix products", "copies")
        if plain in words or (not exact and any(word in plain for word in words)):
            return kind
    return REST


def measure(network: nn.Module, images: Tensor, precision: str, passes: int = 3) -> dict[str, Any]:
    """Fractions of the time and numbers of operations by kind, for one pass.

    Args:
        network: in evaluation mode.
        images: (B, 3, height, width).
        precision: "fp32" or "bf16".
        passes: that are profiled, after one that is not; the fractions are of all together.
    """
    activities = [ProfilerActivity.CPU]
    if images.is_cuda:
        activities.append(ProfilerActivity.CUDA)
    with torch.inference_mode(), system.autocast(images.device, precision):
        network(images)
        with profile(activities=activities, record_shapes=True) as found:
            for _ in range(passes):
                network(images)
    times: Counter[str] = Counter()
    numbers: Counter[str] = Counter()
    copied: Counter[str] = Counter()
    for event in found.events() or ():
        kind = kind_of(event.name)
        own = event.self_device_time_total if images.is_cuda else event.self_cpu_time_total
        times[kind] += own
        if event.cpu_parent is None or kind_of(event.cpu_parent.name) != kind:
            numbers[kind] += 1
        if event.name == "aten::copy_":
            numbers["aten::copy_"] += 1
            copied[f"{event.input_shapes[0]} in {_caller(event)}"] += 1
    total = sum(times.values()) or 1
    kinds = (*KINDS, REST)
    return {
        "milliseconds": total / passes / 1e3,
        "time": {kind: times[kind] / total for kind in kinds},
        "operations": {kind: numbers[kind] // passes for kind in (*kinds, "aten::copy_")},
        "copied": {what: number // passes for what, number in copied.most_common(10)},
    }


def _caller(event: Any) -> str:
    """The operator that copies: the nearest that is none of the conversions itself."""
    parent = event.cpu_parent
    while parent is not None and parent.name in ("aten::_to_copy", "aten::to", "aten::contiguous"):
        parent = parent.cpu_parent
    return "the network" if parent is None else parent.name.removeprefix("aten::")


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The fractions and numbers of several networks side by side, as text."""
    lines = [f"{'':17}" + "".join(f"{name:>24}" for name in results)]
    for kind in (*KINDS, REST):
        cells = (
            f"{each['time'][kind]:>14.1%} {each['operations'][kind]:>9,}"
            for each in results.values()
        )
        lines.append(f"{kind:17}" + "".join(cells))
    for name, each in results.items():
        lines.append(f"{name}: {each['operations']['aten::copy_']:,} copies in a pass")
        lines += [f"  {number:4,} x {what}" for what, number in each["copied"].items()]
    return "\n".join(lines)


def main(words: list[str] | None = None) -> None:
    """Read the command line, measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="name for timm")
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--precision", choices=system.PRECISIONS, default="fp32")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--out", type=Path, help="file to add the numbers to, JSON")
    arguments = parser.parse_args(words)
    device = system.pick_device("auto")
    system.configure(device)
    network = timm.create_model(arguments.model).to(device).eval()
    images = torch.randn(arguments.batch_size, 3, arguments.size, arguments.size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    fast = optimize(network, half=arguments.precision == "bf16")
    results = {
        name: measure(each, images, arguments.precision, arguments.passes)
        for name, each in {"as built": network, "optimized": fast}.items()
    }
    print(table(results))  # noqa: T201
    if arguments.out is not None:
        settings = {
            "model": arguments.model,
            "size": arguments.size,
            "batch_size": arguments.batch_size,
            "precision": arguments.precision,
        }
        _add({**settings, "environment": environment(device), **results}, settings, arguments.out)


def _add(row: Mapping[str, Any], settings: Mapping[str, Any], out: Path) -> None:
    """Write a row into a file of rows, in place of the one of equal settings."""
    rows = json.loads(out.read_text("utf-8"))["rows"] if out.exists() else []
    others = [each for each in rows if any(each[name] != settings[name] for name in settings)]
    out.write_text(json.dumps({"rows": [*others, row]}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
