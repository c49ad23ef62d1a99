"""Evaluate several models as an ensemble."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pacavit.api._console import print_line
from pacavit.data import check_split
from pacavit.engine import build
from pacavit.engine.ensemble import Ensemble, score_ensemble
from pacavit.engine.evaluate import Evaluation
from pacavit.engine.system import pick_device
from pacavit.engine.test_time import augment_test_time
from pacavit.engine.weights.load import load_model, weights_digest
from pacavit.errors import PacavitError
from pacavit.report.evaluation import evaluation_facts, read_evaluation, write_evaluation
from pacavit.report.folders import check_no_file
from pacavit.report.results_page import write_ensemble_page
from pacavit.report.stored import ALL
from pacavit.report.tasks import report_of
from pacavit.report.test_time import test_time_name
from pacavit.utils.command import pacavit_command
from pacavit.utils.text import shown

__all__ = ["check_results_folder", "evaluate_ensemble"]


def evaluate_ensemble(
    models: Sequence[str | Path],
    *,
    data: str | Path | None,
    split: str,
    all_images: bool,
    out: str | Path | None,
    tta: str | None,
    precision: str,
    progress: bool,
) -> Evaluation:
    """Evaluate an ensemble, and save the results with the scores of its members.

    Args:
        models: two or more run folders, weights files or packaged names.
        data: folder with the data set, instead of the one that the first model was trained on.
        split: "train", "val" or "test".
        all_images: use the images of all splits instead.
        out: folder for the results, outside of the runs.
        tta: name of a test-time augmentation.
        precision: "fp32", "bf16" or "auto".
        progress: show a progress bar for each model, and its score.

    Raises:
        PacavitError: any error that a user can fix; the message says what and where.
    """
    chosen = check_split(split)
    folder = check_results_folder(models, out)
    ensemble = Ensemble([augment_test_time(load_model(model), tta) for model in models])
    device = pick_device("auto")
    first = ensemble.models[0]
    report = report_of(first.recipe.task.name)
    observed = report.observer()
    root = None if data is None else Path(data)
    score, members = score_ensemble(
        ensemble,
        None if all_images else chosen,
        root=root,
        device=device,
        precision=precision,
        observe=observed,
        progress=progress,
    )
    if progress:
        main = first.task.main_metric
        alone = [
            f"{shown(str(model))} alone: {report.label(main)} {member.scores[main]:.4f}"
            for model, member in zip(models, members, strict=True)
        ]
        for text in (*score.notes(), *alone):
            print_line(text, stderr=True)
    used = (build.plugins(model.task, model.recipe) for model in ensemble.models)
    plugins = list(dict.fromkeys(itertools.chain.from_iterable(used)))
    command = pacavit_command(
        "evaluate",
        models[0],
        ensemble=[str(model) for model in models[1:]],
        data=data,
        split=None if split == "test" else split,
        all=all_images,
        tta=tta,
        precision=None if precision == "fp32" else precision,
        out=folder,
    ).with_plugins(plugin.path for plugin in plugins)
    measured = test_time_name(ALL if all_images else split, tta)
    facts = {
        **evaluation_facts(score, measured, command, device, plugins),
        "ensemble": [
            {
                "model": shown(str(name)),
                "weights_sha256": weights_digest(model),
                "trained_on": model.info.version,
                "scores": dict(member.scores),
            }
            for name, model, member in zip(models, ensemble.models, members, strict=True)
        ],
    }
    title = f"{score.info.version}, {measured}, ensemble of {len(models)}"
    write_evaluation(score, folder, title=title, facts=facts, observed=observed)
    stored = read_evaluation(folder, None)
    assert stored is not None
    names = [shown(str(model)) for model in models]
    write_ensemble_page(folder, names, members, stored, command)
    return replace(score.evaluation, folder=folder)


def check_results_folder(models: Sequence[str | Path], out: str | Path | None) -> Path:
    """The folder for the results of an ensemble.

    Raises:
        PacavitError: there is none, it is a file, or it lies in one of the runs.
    """
    if out is None:
        raise PacavitError(
            "the results of an ensemble need a folder of their own: give out (--out)"
        )
    folder = Path(out)
    check_no_file(folder)
    place = folder.resolve()
    for model in map(Path, models):
        if model.is_dir() and place.is_relative_to(model.resolve()):
            raise PacavitError(
                f"{shown(folder)} is in the folder of {shown(model)}, one of the ensemble; choose "
                "another folder"
            )
    return folder
