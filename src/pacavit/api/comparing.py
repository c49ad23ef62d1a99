"""Train and measure several runs, or one again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from pacavit import recipes
from pacavit.api._console import print_line
from pacavit.api.training import evaluate, train
from pacavit.compare import (
    Comparison,
    PlannedRun,
    RunResult,
    compare_runs,
    make_plan,
    read_run,
    write_comparison,
)
from pacavit.engine.evaluate import Evaluation
from pacavit.engine.run.folder import recipe_to_resume
from pacavit.engine.weights.format import WEIGHTS
from pacavit.engine.weights.load import load_model
from pacavit.errors import CheckpointError, Interrupted
from pacavit.recipes.io import RECIPE_FILE
from pacavit.report.publishing.published import Published, find_published

__all__ = ["compare", "reproduce"]


def compare(
    recipe: str | Path,
    over: str | Sequence[str],
    out: str | Path,
    *,
    seeds: Sequence[int] = (0,),
    data: str | Path | None = None,
    set: Sequence[str] = (),  # noqa: A002 - the same name as on the command line
    progress: bool = False,
) -> Comparison:
    """Train a recipe with several values of a field, measure all, and put them side by side.

    Repeating the call goes on where it was stopped: runs that are trained and measured stay.

    Args:
        recipe: name of a packaged recipe, or a recipe file.
        over: ``"field.path=a,b,c"``, for example ``"model.clustering=conv,mlp,kmeans"``; of several
            fields, each value is a row of its own, with the recipe's values of the other fields.
        out: folder for the runs, ``comparison.html``, ``comparison.md``, and two pictures.
        seeds: each value is trained with each of them.
        data: folder with the data set, instead of the recipe's; relative to the current folder.
        set: ``"field.path=value"`` changes of all runs.
        progress: show live progress on the console.

    Raises:
        PacavitError: anything a user can mend; the message says what and where.
    """
    out = Path(out)
    over = [over] if isinstance(over, str) else over
    plan = make_plan(recipe, over, seeds=seeds, changes=set, out=out)
    results = []
    for number, run in enumerate(plan.runs, 1):
        if progress:
            counted = f"run {number} of {len(plan.runs)}"
            print_line(f"{counted}: {run.field}={run.value}, seed {run.seed}")
        results.append(_finish(run, data, progress=progress))
    command = ["pacavit", "compare", str(recipe), *(w for each in over for w in ("--over", each))]
    command += ["--seeds", ",".join(map(str, plan.seeds)), "--out", "DIR"]
    command += [] if data is None else ["--data", "ROOT"]
    command += [word for change in set for word in ("--set", change)]
    name = plan.runs[0].recipe.name
    comparison = compare_runs(plan.fields, name, shlex.join(command), results)
    write_comparison(comparison, out)
    return comparison


def reproduce(
    name: str,
    out: str | Path,
    *,
    data: str | Path | None = None,
    progress: bool = False,
) -> tuple[Published, Evaluation]:
    """Train and measure again what a published number was measured of.

    Repeating the call goes on where it was stopped.

    Args:
        name: of the number; ``pacavit.published()`` has all.
        out: folder of the run.
        data: folder with the data set.
        progress: show live progress on the console.

    Returns:
        What was published, and what was measured now.

    Raises:
        PacavitError: anything a user can mend; the message says what and where.
    """
    entry = find_published(name)
    recipe = recipes.load(entry.recipe, entry.changes)
    run = PlannedRun("", name, name, recipe.train.seed, Path(out), recipe)
    return entry, _finish(run, data, progress=progress).evaluation


def _finish(run: PlannedRun, data: str | Path | None, *, progress: bool) -> RunResult:
    """Train and measure what is not trained and measured yet."""
    result = _finished(run, data)
    if result is None:
        begun = (run.folder / RECIPE_FILE).is_file()
        try:
            train(run.recipe, run.folder, data=data, resume=begun, progress=progress)
        except Interrupted:
            raise Interrupted("repeat the same command to go on") from None
        evaluate(run.folder, data=data, progress=progress)
        result = _finished(run, data)
        assert result is not None
    return result


def _finished(run: PlannedRun, data: str | Path | None) -> RunResult | None:
    """A planned run that needs no more work; None for any other."""
    if not (run.folder / WEIGHTS).is_file():
        return None
    recipe_to_resume(run.recipe, run.folder)
    model = load_model(run.folder)
    root = model.recipe.data.root
    if data is not None and Path(data).absolute() != root:
        raise CheckpointError(
            f"{run.folder} was trained on the data in {root}; give that, or another out"
        )
    return read_run(run.label, run.seed, run.folder, model)
