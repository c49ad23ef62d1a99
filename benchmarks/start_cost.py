"""Start-up time and memory: imports, help, lists of names, and the prediction of one image.

::

    python benchmarks/start_cost.py --before ../before/src

Every command runs in a process of its own, and the commands take turns, so that changes of the
machine's speed affect all of them equally; numbers are medians over the rounds with quartiles.
``cpu_seconds`` is the CPU time, user and system, which other programs affect less than ``seconds``.
``peak_mb`` is the largest resident memory of the process. With ``--before`` the commands also run
on the sources of another commit. The result goes to ``benchmarks/results/start.json``. Nothing else
should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from rich.console import Console

from pacavit.bench.turns import quartiles

RESULTS = Path(__file__).parent / "results" / "start.json"
SOURCE = Path(__file__).parents[1] / "src"
TORCH = {
    "import torch": ("-c", "import torch"),
    "import torch, timm": ("-c", "import torch, timm"),
}
COMMANDS = {
    "import pacavit": ("-c", "import torch, timm, pacavit"),
    "pacavit --help": ("-m", "pacavit_cli", "--help"),
    "pacavit list clusterings": ("-m", "pacavit_cli", "list", "clusterings"),
    "pacavit list models": ("-m", "pacavit_cli", "list", "models"),
    "pacavit predict cifar10_nano_conv IMAGE": (
        *("-m", "pacavit_cli", "predict", "cifar10_nano_conv"),
        "image.png",
    ),
}


class Cost(NamedTuple):
    """Time and memory of one process."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


def main() -> None:
    """Read the command line, measure, print and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", type=Path, help="folder src of another commit")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    sources = {"now": SOURCE}
    if arguments.before is not None:
        sources["before"] = arguments.before.resolve()
    console = Console()
    trials: dict[tuple[str, str], list[Cost]] = {}
    with tempfile.TemporaryDirectory() as folder:
        Image.new("RGB", (40, 30), "green").save(Path(folder) / "image.png")
        for number in range(arguments.rounds + 1):  # the first round fills the caches of files
            for name, words in TORCH.items():
                trials.setdefault(("torch", name), []).append(measure(words, SOURCE, folder))
            for state, source in sources.items():
                for name, words in COMMANDS.items():
                    trials.setdefault((state, name), []).append(measure(words, source, folder))
            console.print(f"round {number} of {arguments.rounds}")
    # Imported here, because a child process inherits the peak memory of its parent.
    from pacavit.engine import system
    from pacavit.engine.run.environment import environment

    before = [] if arguments.before is None else ["--before ../before/src"]
    record: dict[str, Any] = {
        "command": " ".join(["python benchmarks/start_cost.py", *before]),
        "rounds": arguments.rounds,
        "environment": environment(system.pick_device("cpu")),
    }
    for (state, name), costs in trials.items():
        figures = {
            field: quartiles([getattr(cost, field) for cost in costs[1:]]) for field in Cost._fields
        }
        record.setdefault(state, {})[name] = figures
        line = ", ".join(f"{field} {figure[1]:.2f}" for field, figure in figures.items())
        console.print(f"{state:>6}  {name}: {line}")
    RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def measure(words: tuple[str, ...], source: Path, folder: str) -> Cost:
    """Run a Python process to its end."""
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 (the commands above)
        [sys.executable, *words], cwd=folder, env=environment, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}")
    return Cost(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


if __name__ == "__main__":
    main()
