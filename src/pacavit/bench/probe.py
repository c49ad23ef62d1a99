"""Run a candidate in a process of its own: for its peak memory, and because it may crash.

The process gets a request as JSON on standard input, and prints its result as the last line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import torch

from pacavit.bench.candidates import find_candidate
from pacavit.bench.engines import Setting, load_library, make_step
from pacavit.bench.memory import RELEASE, PeakMemory
from pacavit.bench.results import failure
from pacavit.utils.registry import load_plugin, loaded_plugins

__all__ = ["Probe", "probe"]

_SOURCE = Path(__file__).parents[2]


class Probe(NamedTuple):
    """What became of a candidate in a process of its own.

    Attributes:
        peak_mebibytes: memory of weights and of a pass, beyond what the libraries take.
        error: why there is none.
    """

    peak_mebibytes: float | None
    error: str | None


def probe(name: str, setting: Setting, file: Path) -> Probe:
    """Build a candidate and run it twice, in a new process; its second pass is measured.

    Args:
        name: of the candidate.
        setting: how to compute it.
        file: the exported network, for engines that need one.
    """
    request = {
        "name": name,
        "setting": setting,
        "file": str(file),
        "plugins": [str(plugin.path) for plugin in loaded_plugins()],
        "threads": torch.get_num_threads(),
    }
    paths = [str(_SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(  # noqa: S603 (this module, in this Python)
        [sys.executable, "-m", __name__],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        env={**os.environ, **RELEASE, "PYTHONPATH": os.pathsep.join(paths)},
    )
    if done.returncode == 0:
        return Probe(*json.loads(done.stdout.splitlines()[-1]))
    if done.returncode < 0:
        reason = "; memory may have been short" if done.returncode == -9 else ""
        return Probe(None, f"its process was killed by signal {-done.returncode}{reason}")
    return Probe(None, (done.stderr.strip().splitlines() or ["its process failed"])[-1])


def main() -> None:
    """Answer the request on standard input."""
    request = json.load(sys.stdin)
    setting = Setting(*request["setting"])
    torch.set_num_threads(request["threads"])
    for path in request["plugins"]:
        load_plugin(path)
    print(json.dumps(_measure(request["name"], setting, Path(request["file"]))))  # noqa: T201


def _measure(name: str, setting: Setting, file: Path) -> Probe:
    load_library(setting.engine)
    memory = PeakMemory(torch.device(setting.device))
    try:
        step = make_step(find_candidate(name), setting, file)
        step()
        memory.reset()
        step()
    except Exception as error:
        return Probe(None, failure(error))
    return Probe(memory.mebibytes(), None)


if __name__ == "__main__":
    main()
