"""Measure networks side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pacavit.api._console import print_line
from pacavit.bench.candidates import Candidate, find_candidate
from pacavit.bench.counts import count
from pacavit.bench.engines import Setting, check_engine, supports
from pacavit.bench.harness import measure, plan_units
from pacavit.bench.machine import DISTURBED, current_load
from pacavit.bench.pages import write_pages
from pacavit.bench.published import peer_set
from pacavit.bench.results import RESULTS, Benchmark, Model, Row, read_results, write_results
from pacavit.engine import system
from pacavit.engine.run.environment import environment
from pacavit.errors import CheckpointError, Interrupted, PacavitError
from pacavit.report.folders import check_no_file
from pacavit.utils.command import pacavit_command
from pacavit.utils.progress import progress as show_items
from pacavit.utils.progress import show_progress
from pacavit.utils.registry import loaded_plugins

__all__ = ["bench"]

_EXPORTED = ".exported"  # in the folder of the results, so that resuming clears what a kill left


def bench(
    models: Sequence[str],
    out: str | Path,
    *,
    peers: str | None = None,
    sizes: Sequence[int] = (224,),
    batch_sizes: Sequence[int] = (1, 16),
    engines: Sequence[str] = ("eager",),
    precisions: Sequence[str] = ("fp32",),
    rounds: int = 20,
    device: str = "auto",
    resume: bool = False,
    progress: bool = False,
) -> Benchmark:
    """Count and time networks side by side, with random images.

    In every setting (engine, precision, batch size, image size) the networks take turns, one batch
    each in every round, so that changes of the machine's speed affect all of them equally. At most
    8 are in memory at once, the first one always among them. Before, each runs alone in a process
    of its own: for its peak memory, and because it may crash. A network that fails becomes a row
    that says why.

    Args:
        models: names of timm models (ours included, with arguments as in
            ``pacavit_small,num_clusters=49``), of packaged weights or of peers such as
            ``focal_tiny``, run folders or weights files. Ratios are to the first.
        out: folder for ``bench.json``, ``bench.md`` and the pictures.
        peers: a set to measure besides: "paper", the networks of the paper's table on ImageNet, or
            "attentions", PaCa-ViT-S with other attentions.
        sizes: heights and widths of the images in pixels.
        batch_sizes: images at once.
        engines: "eager", "optimized", "compile", "onnxruntime" or "openvino".
        precisions: "fp32", "bf16", "fp16" or "int8"; left out where an engine does not have it.
        rounds: that are timed, after two others; 0 counts parameters and multiply-accumulates only.
        device: of PyTorch, for example "cpu" or "cuda"; "auto" takes a GPU if there is one.
        resume: continue an interrupted benchmark in ``out``.
        progress: show progress on stderr, and warnings.

    Raises:
        PacavitError: an unknown name, a size that a model does not take, an engine or model whose
            library is missing, or a folder that holds another benchmark; nothing was measured.
    """
    out, names = Path(out), _labels(models, peers)
    for option, numbers in (("sizes", sizes), ("batch sizes", batch_sizes)):
        if not numbers or min(numbers) < 1 or len(set(numbers)) < len(numbers):
            raise PacavitError(f"{option} are different positive numbers, not {list(numbers)}")
    if rounds < 0:
        raise PacavitError(f"the number of rounds is 0 or more, not {rounds}")
    where = system.pick_device(device, option="device")
    settings = _settings(engines, precisions, batch_sizes, sizes, where)
    asked: dict[str, Any] = {
        "models": list(names),
        "sizes": list(sizes),
        "batch_sizes": list(batch_sizes),
        "engines": list(engines),
        "precisions": list(precisions),
        "rounds": rounds,
        "device": str(where),
    }
    plugins = loaded_plugins()
    facts = environment(where, plugins)
    found = _previous(out, asked, facts, resume=resume)
    candidates = [find_candidate(name, label) for name, label in names.items()]
    system.configure(where)
    try:
        with show_progress(Console(stderr=True) if progress else None):
            if found is None:
                command = pacavit_command(
                    "bench",
                    *models,
                    peers=peers,
                    sizes=_listed(sizes),
                    batch_sizes=_listed(batch_sizes),
                    engines=_listed(engines),
                    precisions=_listed(precisions),
                    rounds=rounds,
                    device=device,
                    out="DIR",
                ).with_plugins(plugin.path for plugin in plugins)
                counted = _count(candidates, sizes)
                found = Benchmark(command.json, asked, facts, counted, current_load())
                write_results(found, out)
            if progress:
                _warn(found.before.others)
            _measure(found, candidates, settings if rounds else [], out)
            if progress and found.disturbed:
                _warn(found.disturbance)
    except KeyboardInterrupt:
        raise Interrupted("repeat the same command with --resume to continue") from None
    write_pages(found, out)
    return found


def _labels(models: Sequence[str], peers: str | None) -> dict[str, str]:
    """The labels of all networks by name, those named by the user first."""
    labels = {name: name for name in models}
    if len(labels) < len(models):
        raise PacavitError(f"a model is named twice: {', '.join(models)}")
    found = peer_set(peers) if peers is not None else {}
    labels = {name: found.get(name, name) for name in models} | {
        name: label for name, label in found.items() if name not in labels
    }
    if not labels:
        raise PacavitError("give at least one MODEL, or --peers paper")
    return labels


def _settings(
    engines: Sequence[str],
    precisions: Sequence[str],
    batch_sizes: Sequence[int],
    sizes: Sequence[int],
    device: torch.device,
) -> list[Setting]:
    """All settings that there are; exported networks are shared by neighbors."""
    computed = []
    for engine in dict.fromkeys(engines):
        able = [name for name in dict.fromkeys(precisions) if supports(engine, name)]
        check_engine(engine, device)
        if not able:
            raise PacavitError(
                f"the engine {engine} does not compute in {' or '.join(precisions)}; give other "
                "--precisions, or leave the engine out"
            )
        computed += [(engine, precision) for precision in able]
    return [
        Setting(engine, precision, batch_size, size, str(device))
        for size in sizes
        for batch_size in batch_sizes
        for engine, precision in computed
    ]


def _previous(
    out: Path, asked: dict[str, Any], facts: dict[str, Any], *, resume: bool
) -> Benchmark | None:
    """The benchmark to continue; None to begin one."""
    check_no_file(out)
    path = out / RESULTS
    if not path.is_file():
        return None
    if not resume:
        raise CheckpointError(
            f"{out} holds a benchmark; continue it with --resume, or give another --out"
        )
    found = read_results(path)
    for name, value in asked.items():
        if found.settings.get(name) != value:
            raise CheckpointError(
                f"the benchmark in {out} was begun with {name} {found.settings.get(name)}, not "
                f"{value}; repeat its command, or give another --out"
            )
    if found.environment != facts:
        raise CheckpointError(
            f"the benchmark in {out} was begun on another machine, or with other versions or "
            "another number of threads; give another --out"
        )
    return found


def _count(candidates: Sequence[Candidate], sizes: Sequence[int]) -> list[Model]:
    counted = []
    for candidate in show_items(candidates, "counting", len(candidates)):
        found = count(candidate, sizes)
        counted.append(Model(candidate.name, candidate.label, *found))
    return counted


def _measure(
    found: Benchmark, candidates: Sequence[Candidate], settings: Sequence[Setting], out: Path
) -> None:
    """Measure what is missing, and save the results after every unit."""
    sound = [each for each in candidates if found.model(each.name).error is None]
    units = plan_units(sound, settings) if sound else []

    def save(rows: Sequence[Row]) -> None:
        found.rows += rows
        write_results(found, out)

    missing = [unit for unit in units if not unit.is_in(found.rows)]
    measure(missing, found.settings["rounds"], save, out / _EXPORTED)
    order = {name: number for number, name in enumerate(found.settings["models"])}
    found.rows.sort(key=lambda row: order[row.name])
    if not found.finished:
        found.after, found.finished = current_load(), True
    write_results(found, out)


def _warn(others: float | None) -> None:
    if others is not None and others > DISTURBED:
        print_line(
            f"warning: other programs keep {others:.1f} cores busy; times are not reliable",
            stderr=True,
        )


def _listed(values: Sequence[object]) -> str:
    return ",".join(map(str, values))
