"""Where OpenVINO spends the time of a pass, in bf16 and in int8.

::

    python benchmarks/engine_profile.py pacavit_small pvt_v2_b2

Networks are exported as by ``pacavit bench``: folded, and in int8 calibrated on random images, for
their speed only. OpenVINO reports the time of each operation that it has compiled. Numbers are
milliseconds of one image, summed by kind: medians over passes in which all networks take turns. The
result is written to ``benchmarks/results/engine_profile.json``. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pacavit.bench.candidates import find_candidate
from pacavit.bench.engines import Setting, prepare
from pacavit.bench.exported import int8_file, load_library
from pacavit.engine.run.environment import environment
from pacavit.errors import PacavitError
from pacavit.utils.command import Command
from pacavit.utils.progress import progress

RESULTS = Path(__file__).parent / "results" / "engine_profile.json"
PRECISIONS: Mapping[str, str] = {"bf16": "bf16", "int8": "f32"}
"""Of all that is not in 8 bits, as OpenVINO names it."""
KINDS: Mapping[str, tuple[str, ...]] = {
    "linear layers": ("FullyConnected",),
    "convolutions": ("Convolution", "GroupConvolution"),
    "attention": ("MatMul", "Softmax", "ScaledDotProductAttention"),
    "normalization": ("MVN", "RMS"),
    "conversions and layouts": ("Reorder", "Transpose", "FakeQuantize", "Convert"),
    "elementwise": ("Subgraph", "Eltwise"),
}
"""Types of operations of OpenVINO by kind; a subgraph is what it compiles of elementwise ones."""
REST = "the rest"
WARM_UP = 2


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, measure and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="+", help="of timm or this package")
    parser.add_argument("--size", type=int, default=224, help="height and width in pixels")
    parser.add_argument("--passes", type=int, default=30)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args(words)
    script = Command(("python", "benchmarks/engine_profile.py", *arguments.models))
    try:
        rows = measure(arguments.models, arguments.size, arguments.passes)
    except PacavitError as error:
        raise SystemExit(str(error)) from None
    record = {
        "command": str(script),
        "size": arguments.size,
        "models": rows,
        "environment": environment(torch.device("cpu")),
    }
    arguments.results.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


def measure(models: Sequence[str], size: int, passes: int) -> list[dict[str, Any]]:
    """Milliseconds and numbers of operations by model, precision and kind; all take turns."""
    images = np.random.default_rng(0).standard_normal((1, 3, size, size), dtype=np.float32)
    requests = {
        (name, precision): request
        for name in models
        for precision, request in compiled(name, size).items()
    }
    passed = defaultdict[tuple[str, str], list[dict[str, tuple[float, int]]]](list)
    for number in progress(range(WARM_UP + passes), "measuring", WARM_UP + passes):
        for key, request in requests.items():
            request.infer([images], share_inputs=True)
            if number >= WARM_UP:
                passed[key].append(by_kind(request.profiling_info))
    rows = []
    for name in models:
        row: dict[str, Any] = {"model": name}
        for precision in PRECISIONS:
            found = passed[name, precision]
            row[precision] = {
                "milliseconds": {
                    kind: round(statistics.median(each[kind][0] for each in found), 2)
                    for kind in found[0]
                },
                "operations": {kind: number for kind, (_, number) in found[0].items()},
            }
        rows.append(row)
    return rows


def compiled(name: str, size: int) -> dict[str, Any]:
    """What computes a network, by precision."""
    core = load_library("openvino").Core()
    requests = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "network.onnx")
        prepare(find_candidate(name), Setting("openvino", "int8", 1, size, "cpu"), file)
        for precision, others in PRECISIONS.items():
            config = {
                "INFERENCE_PRECISION_HINT": others,
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "PERFORMANCE_HINT": "LATENCY",
                "PERF_COUNT": "YES",
            }
            path = int8_file(file) if precision == "int8" else file
            requests[precision] = core.compile_model(path, "CPU", config).create_infer_request()
    return requests


def by_kind(operations: Iterable[Any]) -> dict[str, tuple[float, int]]:
    """Milliseconds and number of the operations of a pass, by kind."""
    times, numbers = Counter[str](), Counter[str]()
    for each in operations:
        seconds = each.real_time.total_seconds()
        times[kind_of(each.node_type)] += 1000 * seconds
        numbers[kind_of(each.node_type)] += seconds > 0
    return {kind: (times[kind], numbers[kind]) for kind in (*KINDS, REST)}


def kind_of(operation: str) -> str:
    """The kind of a type of operations, such as "FullyConnected"."""
    return next((kind for kind, types in KINDS.items() if operation in types), REST)


if __name__ == "__main__":
    main()
