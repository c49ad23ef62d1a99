"""Train and evaluate a run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pacavit import engine, recipes
from pacavit.api._console import print_line
from pacavit.api.ensembles import evaluate_ensemble
from pacavit.data import LabeledImages, check_split
from pacavit.engine import build
from pacavit.engine.distributed import is_main_process
from pacavit.engine.ensemble import model_names
from pacavit.engine.evaluate import Evaluation
from pacavit.engine.precision import check_choice
from pacavit.engine.robustness import (
    check_corruptions,
    check_robustness_model,
    measure_corruptions,
)
from pacavit.engine.scoring import SplitScore, score_model
from pacavit.engine.system import pick_device
from pacavit.engine.test_time import augment_test_time, check_tta
from pacavit.engine.weights import hub
from pacavit.engine.weights.load import LoadedModel, load_model, weights_digest
from pacavit.engine.weights.packaged import packaged_names
from pacavit.errors import PacavitError, RecipeError
from pacavit.recipes.schema import Recipe
from pacavit.report.curves import plot_curves
from pacavit.report.evaluation import evaluation_facts, read_evaluation, write_evaluation
from pacavit.report.explanation.heatmaps import make_heatmaps
from pacavit.report.explanation.mistakes import mistake_files
from pacavit.report.folders import check_no_file
from pacavit.report.results_page import write_results_page
from pacavit.report.run_page import REPORT, write_run_page
from pacavit.report.stored import (
    ALL,
    OTHER_DATA,
    evaluation_folder,
    evaluations,
    other_folder,
)
from pacavit.report.tasks import report_of
from pacavit.report.test_time import test_time_name
from pacavit.utils.command import Command, pacavit_command
from pacavit.utils.text import shown

__all__ = ["evaluate", "report_file", "results_folder", "train"]


def train(
    recipe: str | Path | Recipe,
    out: str | Path,
    *,
    data: str | Path | None = None,
    set: Sequence[str] = (),  # noqa: A002 - the same name as on the command line
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Train a model and return the folder of the run, which ``evaluate`` and ``predict`` take.

    At the end the model is evaluated on the validation images, and ``report.html`` is written into
    the folder.

    Args:
        recipe: name of a packaged recipe, a recipe file, or a recipe. A relative ``data.root``
            is relative to the current folder, wherever the recipe lies.
        out: the run's folder; one that exists is refused.
        data: folder with the data set, instead of the recipe's; relative to the current folder.
        set: ``"field.path=value"`` changes of the recipe, applied in order.
        resume: continue the interrupted run in ``out``; the recipe must be the same. Without
            ``data``, the data folder of that run is used. A finished run is not trained further;
            only its curves and its report are written again.
        overwrite: replace the run in ``out``.
        progress: show live progress on the console.

    Raises:
        PacavitError: any error that a user can fix; the message says what and where.
    """
    if isinstance(recipe, Recipe):
        if set:
            raise RecipeError("set= changes recipes that are given by name or file")
        resolved = recipe
    else:
        resolved = recipes.load(recipe, set)
    root = resolved.data.root if data is None else Path(data)
    if root is not None:
        # Absolute, so that the run can be evaluated from anywhere.
        config = resolved.data.model_copy(update={"root": root.absolute()})
        resolved = resolved.model_copy(update={"data": config})
    run = engine.train(resolved, out, resume=resume, overwrite=overwrite, progress=progress)
    if is_main_process():
        _report_training(run, progress=progress)
    return run


def evaluate(
    model: str | Path | Sequence[str | Path],
    *,
    data: str | Path | None = None,
    split: str = "test",
    all_images: bool = False,
    out: str | Path | None = None,
    tta: str | None = None,
    precision: str = "fp32",
    corruptions: str | Sequence[str] | None = None,
    progress: bool = False,
) -> Evaluation:
    """Evaluate a model on a split, and save the results.

    The results of a run on a split of its own data are saved in its folder ``evaluation-SPLIT``.
    Those of other data, or of all images, are saved in ``other-data/NAME-SPLIT``, which is named
    after the folder of the data, and never replace the former. The run's ``report.html`` shows
    both, the latter in a list of its own; if it cannot be written, a warning says why.

    Args:
        model: run folder, weights file or packaged name; or several, as an ensemble, whose
            probabilities are averaged. An ensemble needs ``out``, outside of the runs, and is
            evaluated on the data of its first model; its page shows the scores of each model too.
        data: folder with the data set, instead of the one the model was trained on. If it holds
            class folders directly, only the images held out for the split are used.
        split: "train", "val" or "test".
        all_images: use the images of all splits, for example a whole folder of class folders.
        out: another folder for the results. Without it, nothing is saved for weights outside of a
            run.
        tta: name of a test-time augmentation: "flip" averages the probabilities of each image and
            its mirror image, "flip_shift" also those shifted by one pixel. Its results are saved
            apart, in folders whose names end in
            ``-tta-NAME``.
        precision: "fp32", whose results agree to 1e-4 with the trained network's; "bf16", which is
            faster where the processor computes with it; "auto": bf16 there, if its outputs for the
            first images agree with those of fp32 to 3 %, else fp32.
            Results of other precisions than fp32 are saved only if ``out`` is given.
        corruptions: names of corruptions, or "all": measure the accuracy on corrupted images too,
            at five severities; for classifiers. See :func:`pacavit.data.corruptions.corrupt`.
        progress: show a progress bar.

    Returns:
        The scores; ``folder`` says where they are saved.

    Raises:
        PacavitError: any error that a user can fix; the message says what and where.
    """
    if all_images and split != "test":
        raise PacavitError(
            f"all images and the split {split!r} exclude each other; leave one of them out"
        )
    model, *others = model_names(model)
    kinds = () if corruptions is None else check_corruptions(corruptions)
    if others:
        if kinds:
            raise PacavitError("corruptions are measured for one model, not for an ensemble")
        return evaluate_ensemble(
            [model, *others],
            data=data,
            split=split,
            all_images=all_images,
            out=out,
            tta=tta,
            precision=precision,
            progress=progress,
        )
    folder = results_folder(model, split=split, out=out, tta=tta, precision=precision)
    if folder is not None and out is None:
        check_no_file(Path(model) / OTHER_DATA)
    loaded = augment_test_time(load_model(model), tta)
    device = pick_device("auto")
    if kinds:
        check_robustness_model(loaded)
    observed = report_of(loaded.recipe.task.name).observer()
    score = score_model(
        loaded,
        None if all_images else check_split(split),
        root=None if data is None else Path(data),
        device=device,
        precision=precision,
        observe=observed,
        progress=progress,
    )
    if progress:
        for text in score.notes():
            print_line(text, stderr=True)
    if kinds:
        assert isinstance(score.images, LabeledImages)
        found = measure_corruptions(loaded, score.images, kinds, device, progress=progress)
        score = score._replace(evaluation=replace(score.evaluation, corruptions=found))
    if folder is not None:
        own = not all_images and _is_own_data(loaded, data, score)
        measured = test_time_name(ALL if all_images else split, tta)
        if out is None and not own:
            root = Path(data or loaded.recipe.data.root or score.info.name)
            folder = other_folder(Path(model), root.absolute(), measured, score.info.version)
        shown_split = None if split == "test" else split
        command = pacavit_command(
            "evaluate",
            model,
            data=data,
            out=out,
            split=shown_split,
            all=all_images,
            tta=tta,
            precision=None if precision == "fp32" else precision,
            corruptions=",".join(kinds) or None,
        )
        _save_score(
            score,
            observed,
            loaded,
            folder,
            split=measured,
            command=command,
            device=device,
            progress=progress,
        )
        if out is not None or not own:
            stored = read_evaluation(folder, weights_digest(loaded))
            assert stored is not None
            write_results_page(folder, loaded, stored)
    if folder is not None and report_file(model, out=out) is not None:
        try:
            _write_report(Path(model), loaded, progress=progress)
        except PacavitError as error:
            # The scores are saved already, and may have taken hours.
            text = f"the report could not be made: {error}"
            if progress:
                print_line(f"warning: {text}", stderr=True)
            else:
                warnings.warn(text, stacklevel=2)
    return replace(score.evaluation, folder=folder)


def results_folder(
    model: str | Path,
    *,
    split: str = "test",
    out: str | Path | None = None,
    tta: str | None = None,
    precision: str = "fp32",
) -> Path | None:
    """The folder in which ``evaluate`` saves the results on a run's own data; None for none.

    Arguments are those of ``evaluate``. For other data see the attribute ``folder`` of its result.

    Raises:
        UnknownNameError: there is no such split, test-time augmentation or precision.
        PacavitError: a file is in the way.
    """
    split = check_split(split)
    check_tta(tta)
    check_choice(precision)
    if out is not None:
        folder = Path(out)
    elif _is_run(model) and precision == "fp32":
        folder = evaluation_folder(Path(model), test_time_name(split, tta))
    else:
        return None
    check_no_file(folder)
    return folder


def _is_own_data(model: LoadedModel, data: str | Path | None, score: SplitScore) -> bool:
    """Whether a split was measured of the data that a model was trained on, wherever they lie."""
    if data is None or score.info.version == model.info.version:
        return True
    root = model.recipe.data.root
    return root is not None and Path(data).resolve() == root.resolve()


def report_file(model: str | Path, *, out: str | Path | None = None) -> Path | None:
    """The report that ``evaluate`` updates, given the same arguments; None if there is none."""
    return Path(model) / REPORT if out is None and _is_run(model) else None


def _is_run(model: str | Path) -> bool:
    return (
        model not in packaged_names()
        and Path(model).is_dir()
        and not (Path(model) / hub.CONFIG).is_file()  # a folder of save_pretrained is no run
    )


def _report_training(run: Path, *, progress: bool) -> None:
    """Draw the curves, evaluate on validation images, and write the report of a finished run."""
    model = load_model(run)
    plot_curves(run, model.task.main_metric)
    # A finished run that is "resumed" was evaluated before, and its images may have been moved.
    if "val" not in evaluations(run, model):
        device = pick_device(model.recipe.train.device)
        observed = report_of(model.recipe.task.name).observer()
        score = score_model(
            model, "val", device=device, precision="fp32", observe=observed, progress=progress
        )
        command = pacavit_command("evaluate", run, split="val")
        folder = evaluation_folder(run, "val")
        _save_score(
            score,
            observed,
            model,
            folder,
            split="val",
            command=command,
            device=device,
            progress=progress,
        )
    _write_report(run, model, progress=progress)


def _write_report(run: Path, model: LoadedModel, *, progress: bool) -> None:
    page = write_run_page(run, model)
    if progress:
        print_line(f"report in {shown(page)}")


def _save_score(
    score: SplitScore,
    observed: Any,
    model: LoadedModel,
    folder: Path,
    *,
    split: str,
    command: Command,
    device: torch.device,
    progress: bool,
) -> None:
    """Write an evaluation with the facts needed to repeat it."""
    plugins = build.plugins(model.task, model.recipe)
    command = command.with_plugins(plugin.path for plugin in plugins)
    facts = {
        **evaluation_facts(score, split, command, device, plugins),
        "trained_on": model.info.version,
        "weights_sha256": weights_digest(model),
    }
    report = report_of(model.recipe.task.name)
    title = f"{score.info.version}, {split}"
    few, heatmaps = report.choose_few(observed), None
    if few:
        heatmaps = make_heatmaps(model, score.images, few, device=device, name=score.image_name)
    mistakes = mistake_files(
        model,
        score,
        report.choose_mistakes(observed),
        title=f"Mistakes of {model.recipe.name} on {title}",
        device=device,
        progress=progress,
    )
    write_evaluation(
        score,
        folder,
        title=title,
        facts=facts,
        observed=observed,
        heatmaps=heatmaps,
        mistakes=mistakes,
    )
