"""Predict a million rows of a parquet file, killed once in the middle: speed, memory and order.

::

    python benchmarks/batch_prediction.py --rows 1000000 --num-workers 2

A tiny network that was not trained predicts small generated images with ``pacavit predict``. The
first process is killed when half of the rows are written; the second one continues. The memory is
the resident memory of the process, and of the processes that read for it, sampled several times a
second: that at the end of the job is compared with that after a tenth of it. The result goes to
``benchmarks/results/batch_prediction.json``. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from rich.console import Console

from pacavit import recipes
from pacavit.data import DATASETS
from pacavit.engine import build, save_weights, system
from pacavit.engine.run.environment import environment

RESULTS = Path(__file__).parent / "results" / "batch_prediction.json"
SIZE, DISTINCT, GROUP_ROWS, PAGE = 16, 1_000, 10_000, os.sysconf("SC_PAGE_SIZE")
NETWORK = (
    "task.image_size=16",
    "model.options={embed_dims = [8, 16, 16], depths = [1, 1, 1], num_heads = [1, 1, 1], "
    "stem_dims = [8, 8]}",
)


class Usage(NamedTuple):
    """What a process used when so many rows were written: seconds, and MB of resident memory."""

    rows: int
    seconds: float
    own_mb: float
    workers_mb: float


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "tiny.safetensors")
        write_rows(folder / "rows.parquet", arguments.rows)
        out = folder / "out.parquet"
        command = [
            *(sys.executable, "-m", "pacavit_cli", "predict", str(folder / "tiny.safetensors")),
            *(str(folder / "rows.parquet"), "--out", str(out), "--top-k", "1"),
            *("--batch-size", str(arguments.batch_size)),
            *("--num-workers", str(arguments.num_workers)),
        ]
        killed = run(command, out, kill_at=arguments.rows // 2)
        resumed = run(command, out, kill_at=None)
        check(out, arguments.rows)
    record = {
        "command": f"python benchmarks/batch_prediction.py --rows {arguments.rows} "
        f"--num-workers {arguments.num_workers} --batch-size {arguments.batch_size}",
        "rows": arguments.rows,
        "killed": summary(killed),
        "resumed": summary(resumed),
        "environment": environment(system.pick_device("cpu")),
    }
    arguments.results.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    Console().print_json(data={name: record[name] for name in ("killed", "resumed")})


def write_model(path: Path) -> None:
    """Weights of a tiny network for images of 16 x 16 pixels."""
    recipe = recipes.load("digits", NETWORK)
    info = DATASETS.get("digits")().info
    save_weights(path, build.task(recipe, info).model, recipe, info, {})


def write_rows(path: Path, rows: int) -> None:
    """A parquet file of images as the Hugging Face hub stores them, each with its number."""
    rng, encoded = np.random.default_rng(0), []
    for _ in range(DISTINCT):
        stream = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)).save(stream, "png")
        encoded.append(stream.getvalue())
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    with pq.ParquetWriter(path, pa.schema([("image", kind)])) as writer:
        for start in range(0, rows, GROUP_ROWS):
            group = [
                {"bytes": encoded[number % DISTINCT], "path": f"{number:09}.png"}
                for number in range(start, min(start + GROUP_ROWS, rows))
            ]
            writer.write_table(pa.table({"image": pa.array(group, kind)}))


def run(command: Sequence[str], out: Path, kill_at: int | None) -> list[Usage]:
    """Run the command, and sample its memory until it ends, or kill it."""
    partial, start, usage = out.with_name(f"{out.name}.partial"), time.monotonic(), list[Usage]()
    with subprocess.Popen(command) as process:  # noqa: S603 (its words are in this file)
        done = size = 0
        while process.poll() is None:
            time.sleep(0.2)
            if partial.exists():
                with partial.open("rb") as file:
                    file.seek(size)
                    added = file.read()
                done, size = done + added.count(b"\n"), size + len(added)
            if done:
                seconds = time.monotonic() - start
                usage.append(Usage(done - 1, seconds, *memory(process.pid)))
            if kill_at is not None and done > kill_at:
                process.send_signal(signal.SIGKILL)
                return usage
    if process.returncode:
        raise SystemExit(f"pacavit predict ended with {process.returncode}")
    return usage


def memory(pid: int) -> tuple[float, float]:
    """MB of resident memory of a process, and of its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    numbers = children.read_text().split() if children.exists() else []
    return resident(pid), sum(resident(int(number)) for number in numbers)


def resident(pid: int) -> float:
    """MB of resident memory of a process; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 2**20
    except (OSError, IndexError):
        return 0.0


def check(out: Path, rows: int) -> None:
    """Raise unless the rows are those of the input, in its order."""
    file, expected = pq.ParquetFile(out), 0
    for batch in file.iter_batches(columns=["path", "error"]):
        for path, error in zip(*(column.to_pylist() for column in batch), strict=True):
            if path != f"{expected:09}.png" or error is not None:
                raise SystemExit(f"row {expected} is {path!r} with error {error!r}")
            expected += 1
    if expected != rows:
        raise SystemExit(f"{expected} rows instead of {rows}")


def summary(usage: Sequence[Usage]) -> dict[str, Any]:
    """Rows a second, and the memory after a tenth of the samples and at the end."""
    first, last = usage[len(usage) // 10], usage[-1]
    seconds = last.seconds - usage[0].seconds
    return {
        "rows": last.rows,
        "images_per_second": round((last.rows - usage[0].rows) / seconds, 1) if seconds else None,
        **{
            f"{name}_{when}": round(getattr(sample, name))
            for name in ("own_mb", "workers_mb")
            for when, sample in (("after_a_tenth", first), ("at_the_end", last))
        },
        "largest_own_mb": round(max(each.own_mb for each in usage)),
    }


if __name__ == "__main__":
    main()
