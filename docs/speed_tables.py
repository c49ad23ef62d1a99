"""The tables on speed and reliability, from the recorded files in ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from result_tables import RESULTS, named_table, record

from pacavit.report.markdown import table


def _quartiles(values: Sequence[float], digits: int) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in values)
    return f"{middle} ({low} to {high})"


@named_table("functions-speed")
def functions_speed() -> str:
    """Clusterings as functions, against scikit-learn."""
    rows = [
        [
            f"`{row['method']}`",
            str(row["points"]),
            f"{row['milliseconds'][1]:.2f}",
            f"{row['scikit_learn_milliseconds'][1]:.1f}",
            _quartiles(row["ratio"], 1),
        ]
        for row in record("clustering_speed")["rows"]
    ]
    header = ["", "points", "milliseconds", "scikit-learn", "times as fast (quartiles)"]
    return table(header, rows)


@named_table("step-speed")
def step_speed() -> str:
    """A training step with each clustering."""
    rows = [
        [
            f"`{row['clustering']}`",
            f"{row['milliseconds'][1]:.0f}",
            _quartiles(row["ratio"], 2),
        ]
        for row in record("clustering_step")["rows"]
    ]
    return table(["clustering", "milliseconds", "of conv's (quartiles)"], rows)


@named_table("start")
def start() -> str:
    """Time and memory of commands, before and after libraries were loaded only when needed."""
    runs = record("start")
    cells = [[f"`{name}`", *_cost(cost), "", ""] for name, cost in runs["torch"].items()]
    cells += [
        [f"`{name}`", *_cost(cost), *_cost(runs["before"][name])]
        for name, cost in runs["now"].items()
    ]
    return table(["", "seconds", "MB", "seconds before", "MB before"], cells)


def _cost(cost: dict[str, Sequence[float]]) -> list[str]:
    return [f"{cost['cpu_seconds'][1]:.2f}", f"{cost['peak_mb'][1]:,.0f}"]


@named_table("copies")
def copies() -> str:
    """Tensors that a forward pass copies, as built and optimized."""
    rows = [
        [
            str(row["size"]),
            str(row["batch_size"]),
            row["precision"],
            *(str(row[name]["operations"]["aten::copy_"]) for name in ("as built", "optimized")),
        ]
        for row in record("inference_profile")["rows"]
    ]
    return table(["image side", "batch", "precision", "as built", "optimized"], rows)


@named_table("engine-profile")
def engine_profile() -> str:
    """Milliseconds of an exported network by kind of operation, in bf16 and int8."""
    models = record("engine_profile")["models"]
    columns = [(row, precision) for row in models for precision in ("bf16", "int8")]
    times = [row[precision]["milliseconds"] for row, precision in columns]
    rows = [[kind, *(f"{each[kind]:.1f}" for each in times)] for kind in times[0]]
    rows.append(["sum", *(f"{sum(each.values()):.1f}" for each in times)])
    header = [f"`{row['model']}`, {precision}" for row, precision in columns]
    return table(["milliseconds", *header], rows)


@named_table("trials")
def trials() -> str:
    """Killed runs and wrong inputs."""
    kills, inputs = record("kill_resume"), record("wrong_inputs")
    points = kills["points"]
    same = sum(point["identical"] for point in points)
    outcomes = inputs["outcomes"]
    rows = [
        [
            "`kill -9` at a random moment of training, then `--resume`",
            str(len(points)),
            f"{same} runs end with the same bits as an uninterrupted run; "
            f"{kills['half_written_checkpoints']} of the kills left a half-written checkpoint",
            _command(kills),
        ],
        [
            "wrong files and settings",
            str(inputs["inputs"]),
            f"{outcomes['one line']} end with one line and exit code 2, {outcomes['works']} work, "
            f"{len(inputs['failures'])} end in a traceback, hang or run out of memory",
            _command(inputs),
        ],
    ]
    return table(["trial", "number", "result", "repeat"], rows)


def _command(recorded: Any) -> str:
    return f"`{recorded['command']}`"


@named_table("wrong-inputs")
def wrong_inputs() -> str:
    """Wrong inputs by group."""
    rows = [
        [name, *(str(number) for number in (sum(counts.values()), *_outcomes(counts)))]
        for name, counts in record("wrong_inputs")["groups"].items()
    ]
    return table(["group", "inputs", "one line", "works"], rows)


def _outcomes(counts: dict[str, int]) -> tuple[int, int]:
    return counts.get("one line", 0), counts.get("works", 0)


@named_table("exported")
def exported() -> str:
    """Exported files beside the network: size, score on the test split, and speed."""
    if not (RESULTS / "exported.json").is_file():
        return "Not measured yet."
    found = record("exported")
    batches = [str(number) for number in found["settings"]["batches"]]
    header = ["model", "engine", "MB", "test score"]
    header += [f"images/s, batch {number} (times PyTorch's)" for number in batches]
    rows = [
        [f"`{name}`", engine, *_exported_cells(row, engine, batches)]
        for name, row in found["models"].items()
        for engine in row["engines"]
    ]
    return table(header, rows)


def _exported_cells(row: Any, engine: str, batches: Sequence[str]) -> list[str]:
    """Size, score, and speed by number of images; dashes for what could not be exported."""
    cells = row["engines"][engine]
    if "refused" in cells:
        return ["-"] * (2 + len(batches))
    speeds = [row["speed"][number][engine] for number in batches]
    return [
        f"{cells['bytes'] / 1e6:.1f}",
        f"{cells['score']:.4f}",
        *(f"{each['images_per_second'][1]:,.0f} ({each['ratio'][1]:.2f})" for each in speeds),
    ]


@named_table("serving-speed")
def serving_speed() -> str:
    """The server beside a loop of batches over the same images."""
    if not _serving():
        return "Not measured yet."
    rows = [
        [
            f"`{row['model']}`",
            str(speed["images"]),
            f"{speed['images_per_second'][1]:,.0f}",
            _quartiles(speed["ratio"], 2),
            f"{speed['p50_ms']:.0f}",
            f"{speed['p99_ms']:.0f}",
        ]
        for row in _serving()
        for speed in row["speed"]
    ]
    header = [
        "model",
        "images in a request",
        "images/s",
        "of the loop's (quartiles)",
        "median ms",
        "99th percentile ms",
    ]
    return table(header, rows)


@named_table("serving-trials")
def serving_trials() -> str:
    """What came of malformed requests, half-sent bodies, many requests and a killed worker."""
    if not _serving():
        return "Not measured yet."
    rows = []
    for row in _serving():
        mixed, half, memory = row["mixed"], row["half_sent"], row["memory"]
        killed = row["killed"]
        results = {
            "malformed requests among others": f"{_counted(mixed['statuses'])}; "
            f"{mixed['malformed_answered_with_4xx']} of {mixed['malformed']} malformed ones got a "
            f"4xx; largest difference to `predict` {mixed['largest_difference']:.0e}",
            f"{half['clients']} half-sent bodies": f"{_counted(half['statuses'])}; 99th percentile "
            f"{half['during']['p99_ms']:.0f} ms, {half['before']['p99_ms']:.0f} ms without them",
            f"{memory['requests']:,} requests": f"{memory['after_mb']:,} MB afterwards, "
            f"{memory['before_mb']:,} MB before",
            "`kill -9` of one of two workers": f"{_counted(killed['statuses'])}, with "
            f"{killed['in_flight']} in flight; afterwards {_counted(killed['statuses_later'])}",
        }
        rows += [[f"`{row['model']}`", trial, result] for trial, result in results.items()]
    return table(["model", "trial", "result"], rows)


def _serving() -> Sequence[Any]:
    """The recorded models; none before the server is measured."""
    if not (RESULTS / "serving.json").is_file():
        return []
    rows: Sequence[Any] = record("serving")["rows"]
    return rows


def _counted(statuses: dict[str, int]) -> str:
    return ", ".join(f"{number:,} x {status}" for status, number in statuses.items())
