"""Measure networks side by side: in every setting they take turns, a batch each in every round."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from pacavit.bench.candidates import Candidate
from pacavit.bench.engines import Setting, make_step, prepare
from pacavit.bench.machine import Watch
from pacavit.bench.probe import Probe, probe
from pacavit.bench.results import Row, failure
from pacavit.bench.turns import quartiles, ratios, take_turns
from pacavit.utils.progress import progress

__all__ = ["WARM_UP", "Unit", "measure", "plan_units"]

WARM_UP = 2
"""Rounds before those that are measured."""

_GROUP = 8  # networks in memory at once; torch.compile gives up after 8 of one class


class Unit(NamedTuple):
    """Networks that take turns in one setting.

    Attributes:
        setting: how they are computed.
        group: the first network of all, and some others.
        is_first: whether the row of the first network comes from here.
    """

    setting: Setting
    group: Sequence[Candidate]
    is_first: bool

    def is_in(self, rows: Sequence[Row]) -> bool:
        """Whether all of it is measured already."""
        own = self.group if self.is_first else self.group[1:]
        done = {(row.name, row.shape) for row in rows}
        return all((each.name, self.setting[:4]) in done for each in own)


def plan_units(candidates: Sequence[Candidate], settings: Sequence[Setting]) -> list[Unit]:
    """Divide the work: at most 8 networks at once, the first one always among them.

    Args:
        candidates: at least one; ratios are to the first.
        settings: in the order in which each group is measured.
    """
    first, *others = candidates
    size = _GROUP - 1
    groups = [others[start : start + size] for start in range(0, len(others), size)] or [[]]
    return [
        Unit(setting, [first, *group], group is groups[0])
        for group in groups
        for setting in settings
    ]


def measure(
    units: Sequence[Unit], rounds: int, save: Callable[[Sequence[Row]], None], folder: Path
) -> None:
    """Measure units one after the other; a network that fails becomes a row that says why.

    Args:
        units: of :func:`plan_units`.
        rounds: that are timed, after ``WARM_UP`` others.
        save: gets the rows of each unit as soon as it is measured.
        folder: for exported networks; its content, and in the end itself, is removed.
    """
    total = sum(len(unit.group) for unit in units)
    folder.mkdir(exist_ok=True)
    try:
        for _ in progress(_measure(units, rounds, save, folder), "measuring", total):
            pass
    finally:
        _remove(folder)
        folder.rmdir()


def _measure(
    units: Sequence[Unit], rounds: int, save: Callable[[Sequence[Row]], None], folder: Path
) -> Iterator[None]:
    """Yield once for each network of each unit."""
    exported: object = None
    for unit in units:
        needed = (id(unit.group), unit.setting.batch_size, unit.setting.size)
        if needed != exported:
            _remove(folder)
            exported = needed
        files = [folder / f"{position}.onnx" for position in range(len(unit.group))]
        probes = {}
        for candidate, file in zip(unit.group, files, strict=True):
            probes[candidate.name] = _probe(candidate, unit.setting, file)
            yield
        rows = _by_turns(unit, probes, files, rounds)
        save(rows if unit.is_first else rows[1:])


def _remove(folder: Path) -> None:
    """Remove exported networks, which are large; settings of one group and shape share them."""
    for path in folder.iterdir():
        path.unlink()


def _probe(candidate: Candidate, setting: Setting, file: Path) -> Probe:
    try:
        prepare(candidate, setting, file)
    except Exception as error:
        return Probe(None, failure(error))
    return probe(candidate.name, setting, file)


def _by_turns(
    unit: Unit, probes: dict[str, Probe], files: Sequence[Path], rounds: int
) -> list[Row]:
    """The rows of a unit, in the order of its group."""
    steps, errors = {}, {name: found.error for name, found in probes.items()}
    for candidate, file in zip(unit.group, files, strict=True):
        if errors[candidate.name] is None:
            try:
                step = make_step(candidate, unit.setting, file)
                step()  # compiles, where that is needed
            except Exception as error:
                errors[candidate.name] = failure(error)
            else:
                steps[candidate.name] = step
    watch = Watch()
    times = take_turns(steps, rounds, WARM_UP)
    others = watch.others()
    steps.clear()
    _free(unit.setting)
    rows = [_row(each.name, unit, times, probes[each.name], errors) for each in unit.group]
    return [replace(row, others=others) for row in rows]


def _row(
    name: str,
    unit: Unit,
    times: dict[str, list[float]],
    found: Probe,
    errors: dict[str, str | None],
) -> Row:
    setting = unit.setting
    row = Row(name, *setting[:4], error=errors[name])
    if row.error is not None:
        return row
    own, reference = times[name], times.get(unit.group[0].name)
    return Row(
        name,
        *setting[:4],
        images_per_second=quartiles([setting.batch_size / seconds for seconds in own]),
        ratio=None if reference is None else ratios(reference, own),
        peak_mebibytes=found.peak_mebibytes,
    )


def _free(setting: Setting) -> None:
    """Release what the networks of a unit took, compiled programs included."""
    if setting.engine == "compile":
        torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
