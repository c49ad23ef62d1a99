"""Train and evaluate several runs, or one again."""

from __future__ import annotations

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
from pacavit.engine.run.environment import needed_plugins
from pacavit.engine.run.folder import recipe_to_resume
from pacavit.engine.weights.format import WEIGHTS
from pacavit.engine.weights.load import load_model
from pacavit.errors import CheckpointError, Interrupted
from pacavit.recipes.io import RECIPE_FILE
from pacavit.report.publishing.published import Published, find_published
from pacavit.utils.command import pacavit_command

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
    """Train a recipe with several values of a field, evaluate all runs, and compare them.

    Repeating the call resumes an interrupted comparison; finished runs are kept.

    Args:
        recipe: name of a packaged recipe, or a recipe file.
        over: ``"field.path=a,b,c"``, for example ``"model.clustering=conv,mlp,kmeans"``, or several
            of these. Each value is one run, with the recipe's values of all other fields.
        out: folder for the runs, ``comparison.html``, ``comparison.md``, and two pictures.
        seeds: each value is trained with each of them.
        data: folder with the data set, instead of the recipe's; relative to the current folder.
        set: ``"field.path=value"`` changes of all runs.
        progress: show live progress on the console.

    Raises:
        PacavitError: any error that a user can fix; the message says what and where.
    """
    out = Path(out)
    over = [over] if isinstance(over, str) else over
    plan = make_plan(recipe, over, seeds=seeds, changes=set, out=out)
    results = []
    plugins: dict[str, None] = {}
    for number, run in enumerate(plan.runs, 1):
        if progress:
            counted = f"run {number} of {len(plan.runs)}"
            print_line(f"{counted}: {run.field}={run.value}, seed {run.seed}")
        results.append(_finish(run, data, progress=progress))
        plugins |= dict.fromkeys(needed_plugins(run.folder))
    command = pacavit_command(
        "compare",
        recipe,
        over=tuple(over),
        seeds=",".join(map(str, plan.seeds)),
        out="DIR",
        data=None if data is None else "ROOT",
        set=tuple(set),
    ).with_plugins(plugins)
    comparison = compare_runs(plan.fields, plan.runs[0].recipe.name, command, results)
    write_comparison(comparison, out)
    return comparison


def reproduce(
    name: str,
    out: str | Path,
    *,
    data: str | Path | None = None,
    progress: bool = False,
) -> tuple[Published, Evaluation]:
    """Train and evaluate the run behind a published result again.

    Repeating the call resumes an interrupted run.

    Args:
        name: of the result; ``pacavit.api.published()`` lists all.
        out: run folder.
        data: folder with the data set.
        progress: show live progress on the console.

    Returns:
        The published result, and the new evaluation.

    Raises:
        PacavitError: any error that a user can fix; the message says what and where.
    """
    entry = find_published(name)
    recipe = recipes.load(entry.recipe, entry.changes)
    run = PlannedRun("", name, name, recipe.train.seed, Path(out), recipe)
    return entry, _finish(run, data, progress=progress).evaluation


def _finish(run: PlannedRun, data: str | Path | None, *, progress: bool) -> RunResult:
    """Train and evaluate a run unless that is done already."""
    result = _finished(run, data)
    if result is None:
        begun = (run.folder / RECIPE_FILE).is_file()
        try:
            train(run.recipe, run.folder, data=data, resume=begun, progress=progress)
        except Interrupted:
            raise Interrupted("repeat the same command to resume") from None
        evaluate(run.folder, data=data, progress=progress)
        result = _finished(run, data)
        assert result is not None
    return result


def _finished(run: PlannedRun, data: str | Path | None) -> RunResult | None:
    """The result of a planned run; None if it is not trained or not evaluated."""
    if not (run.folder / WEIGHTS).is_file():
        return None
    recipe_to_resume(run.recipe, run.folder)
    model = load_model(run.folder)
    root = model.recipe.data.root
    if data is not None and Path(data).absolute() != root:
        raise CheckpointError(
            f"{run.folder} was trained on the data in {root}; give that folder, or another out"
        )
    return read_run(run.label, run.seed, run.folder, model)
