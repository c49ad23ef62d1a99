"""Steps of ``gpu.sh``: missing packages, the device, the number of epochs, and the record."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NEEDED = ("hypothesis", "pytest", "pytest-timeout")
"""Needed by the tests, beside the dependencies of the package."""


def missing_packages() -> Iterator[str]:
    """Requirements of the package and its tests that are not installed, or too old."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for text in (*project["dependencies"], *NEEDED):
        requirement = Requirement(text)
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield text
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield text


def packages(wheels: str) -> None:
    """Print the missing packages; stop, in one line, if they cannot be installed.

    Args:
        wheels: the folder to install from.
    """
    missing = list(missing_packages())
    if missing and not Path(wheels).is_dir():
        names = ", ".join(missing)
        sys.exit(f"this machine lacks {names}; put their wheels into {wheels}, see gpu.sh")
    sys.stdout.write("".join(f"{each}\n" for each in missing))


def device(name: str) -> None:
    """Stop, in one line, unless PyTorch can compute on a device.

    Args:
        name: as for ``train.device``.
    """
    import torch

    if name.startswith("cuda") and not torch.cuda.is_available():
        sys.exit(f"PyTorch {torch.__version__} sees no CUDA device; gpu.sh needs one")
    sys.stdout.write(f"PyTorch {torch.__version__} on {_device_name(name)}\n")


def epochs(run: str, recipe: str, seconds: str, *changes: str) -> None:
    """Print how many epochs of a recipe fit, at most as many as it has.

    Args:
        run: a short run of it.
        recipe: its name or file.
        seconds: there are.
        changes: of the recipe, ``FIELD=VALUE``.
    """
    from pacavit import recipes

    rows = _rows(Path(run))
    first, last = rows[0]["elapsed"], rows[-1]["elapsed"]
    pace = (last - first) / (len(rows) - 1)
    # The first epoch compiles, and takes longer; a tenth is for the end of the training.
    fitting = int((0.9 * float(seconds) - (first - pace)) / pace)
    sys.stdout.write(f"{min(max(fitting, 1), recipes.load(recipe, changes).train.epochs)}\n")


def record(out: str, name: str, file: str) -> None:
    """Write what was measured as JSON.

    Args:
        out: folder of the script's results.
        name: of the device, as for ``train.device``.
        file: to write.
    """
    import torch

    folder = Path(out)
    found: dict[str, Any] = {
        "command": "sh benchmarks/gpu.sh",
        "device": _device_name(name),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "tests": _tests(folder / "tests.log"),
        "training": _training(folder / "run"),
    }
    Path(file).write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    sys.stdout.write(
        f"wrote {file}: {json.dumps(found['tests'])}, {json.dumps(found['training'])}\n"
    )


def _device_name(name: str) -> str:
    import torch

    return torch.cuda.get_device_name(name) if name.startswith("cuda") else name


def _rows(run: Path) -> list[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _tests(log: Path) -> dict[str, int] | None:
    """Numbers of tests by their result, from the last line of pytest; None if they did not end."""
    lines = log.read_text("utf-8").splitlines() if log.is_file() else []
    counts = re.findall(r"(\d+) (passed|failed|errors?|skipped)\b", lines[-1]) if lines else []
    return {kind.rstrip("s"): int(number) for number, kind in counts} or None


def _training(run: Path) -> dict[str, Any] | None:
    """Epochs, minutes and scores of a run so far; None if there is none."""
    if not (run / "metrics.jsonl").is_file():
        return None
    rows = _rows(run)
    evaluation = run / "evaluation-test" / "evaluation.json"
    scores = json.loads(evaluation.read_text("utf-8")) if evaluation.is_file() else None
    return {
        "epochs": len(rows),
        "minutes": rows[-1]["elapsed"] / 60,
        "val_accuracy": rows[-1]["val_accuracy"],
        "test_accuracy": None if scores is None else scores["scores"]["accuracy"],
        "data": None if scores is None else scores["data"],
    }


COMMANDS: dict[str, Callable[..., None]] = {
    "packages": packages,
    "device": device,
    "epochs": epochs,
    "record": record,
}

if __name__ == "__main__":
    COMMANDS[sys.argv[1]](*sys.argv[2:])
