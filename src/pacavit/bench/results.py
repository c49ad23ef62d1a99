"""Results of a benchmark, and their file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pacavit.bench.machine import DISTURBED, Load
from pacavit.errors import CheckpointError
from pacavit.utils import files
from pacavit.utils.text import one_line

__all__ = ["RESULTS", "Benchmark", "Model", "Row", "failure", "read_results", "write_results"]

RESULTS = "bench.json"
_LONGEST = 300  # characters of a reason


@dataclass(frozen=True)
class Model:
    """A network, and what it costs whatever computes it.

    Attributes:
        name: that ``pacavit bench`` takes.
        label: for tables and pictures.
        parameters: by side of the image in pixels, because of position embeddings.
        macs: multiply-accumulates for one image, by side of the image.
        error: why it cannot be built or run; then the other two are empty.
    """

    name: str
    label: str
    parameters: dict[int, int]
    macs: dict[int, int]
    error: str | None = None


@dataclass(frozen=True)
class Row:
    """One network in one setting.

    Attributes:
        name: of the network.
        engine: what computed it.
        precision: "fp32", "bf16", "fp16" or "int8".
        batch_size: images at once.
        size: height and width of the images in pixels.
        images_per_second: quartiles over the rounds; None if it failed.
        ratio: quartiles over the rounds of the first network's time over this one's; None if one
            of the two failed.
        peak_mebibytes: memory of weights and of a pass, in a process of its own.
        others: cores that other programs kept busy during the rounds; None where it is unknown.
        error: why it failed.
    """

    name: str
    engine: str
    precision: str
    batch_size: int
    size: int
    images_per_second: list[float] | None = None
    ratio: list[float] | None = None
    peak_mebibytes: float | None = None
    others: float | None = None
    error: str | None = None

    @property
    def shape(self) -> tuple[str, str, int, int]:
        """Engine, precision, batch size and image size: what rows of several networks share."""
        return self.engine, self.precision, self.batch_size, self.size


@dataclass
class Benchmark:
    """Everything that ``pacavit bench`` found out.

    Attributes:
        command: repeats it, as words.
        settings: what was asked for; a benchmark can only be resumed with the same.
        environment: machine and versions.
        models: in the order given.
        before: load of the machine before the first measurement.
        after: the same after the last; None if it is not finished.
        rows: by setting and network.
        finished: whether all is measured.
    """

    command: list[str]
    settings: dict[str, Any]
    environment: dict[str, Any]
    models: list[Model]
    before: Load
    after: Load | None = None
    rows: list[Row] = field(default_factory=list)
    finished: bool = False

    def model(self, name: str) -> Model:
        """A network by its name."""
        return next(model for model in self.models if model.name == name)

    @property
    def disturbance(self) -> float:
        """The most cores that other programs kept busy, before, during or after."""
        loads = [self.before.others, *(row.others for row in self.rows)]
        loads += [self.after.others] if self.after is not None else []
        return max((load for load in loads if load is not None), default=0.0)

    @property
    def disturbed(self) -> bool:
        """Whether times were measured while other programs kept cores busy."""
        return bool(self.rows) and self.disturbance > DISTURBED


def failure(error: BaseException) -> str:
    """Why a network failed, in one line."""
    return one_line(error, kind=True)[:_LONGEST]


def write_results(found: Benchmark, folder: Path) -> None:
    """Write the results, whole or not at all.

    Raises:
        CheckpointError: the file cannot be written.
    """
    path = folder / RESULTS
    with files.writing(path):
        files.replace_file(path, (json.dumps(asdict(found), indent=1) + "\n").encode())


def read_results(path: Path) -> Benchmark:
    """The results in a file.

    Raises:
        CheckpointError: it cannot be read, or was not written by ``write_results``.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
        models = [
            Model(**{**each, **{name: _by_size(each[name]) for name in ("parameters", "macs")}})
            for each in content.pop("models")
        ]
        rows = [Row(**row) for row in content.pop("rows")]
        before, after = (_load(content.pop(name)) for name in ("before", "after"))
        assert before is not None
        return Benchmark(**content, models=models, rows=rows, before=before, after=after)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise CheckpointError(
            f"cannot read the benchmark in {path} ({one_line(error)}); give another --out"
        ) from error


def _by_size(counts: dict[str, int]) -> dict[int, int]:
    return {int(size): count for size, count in counts.items()}


def _load(values: Sequence[float | None] | None) -> Load | None:
    return None if values is None else Load(*values)
