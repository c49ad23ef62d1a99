"""Package a run as weights that ship with this package: a small file and its model card."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pacavit.engine.evaluate import Evaluation
from pacavit.engine.run.environment import read_environment
from pacavit.engine.run.log import read_metrics
from pacavit.engine.scoring import score_model
from pacavit.engine.selection import describe_outcome, is_finished
from pacavit.engine.system import pick_device
from pacavit.engine.weights.format import save_weights
from pacavit.engine.weights.load import LoadedModel, load_model
from pacavit.errors import CheckpointError, DataError
from pacavit.report.publishing.card import model_card
from pacavit.utils.command import Command, pacavit_command

__all__ = ["MAX_BYTES", "RunFacts", "package_weights", "run_facts", "score_for_card"]

MAX_BYTES = 6_000_000
"""Largest file that ships inside the package."""


def package_weights(
    run: Path, name: str, dest: Path, *, data: Path | None = None, progress: bool = False
) -> tuple[Path, Path]:
    """Write ``NAME.safetensors`` in half precision and ``NAME.md``, its model card.

    The scores in the card are measured on the test split with the written file.

    Args:
        run: folder of a finished run.
        name: of the weights, by which users load them.
        dest: folder for the two files, created if needed.
        data: folder with the data set, instead of the run's.
        progress: show a progress bar.

    Returns:
        The two files.

    Raises:
        CheckpointError: the run is not usable, or the file would be larger than ``MAX_BYTES``.
        DataError: the test images cannot be read.
    """
    trained = load_model(run)
    facts = run_facts(run, trained)
    weights, card = dest / f"{name}.safetensors", dest / f"{name}.md"
    save_weights(
        weights,
        trained.task.model,
        trained.recipe,
        trained.info,
        trained.metrics,
        calibration=trained.calibration,
        half=True,
    )
    if (size := weights.stat().st_size) > MAX_BYTES:
        weights.unlink()
        raise CheckpointError(
            f"weights of {trained.recipe.model.name} take {size / 1e6:.1f} MB, more than the "
            f"{MAX_BYTES / 1e6:g} MB allowed; package a smaller model"
        )
    # The recipe of the run names the folder of the images, that of the weights file does not.
    stored = replace(load_model(weights), recipe=trained.recipe)
    evaluation, command = score_for_card(stored, name, data=data, progress=progress)
    text = model_card(
        name, stored, evaluation, **facts._asdict(), evaluation_command=command, half=True
    )
    card.write_text(text, encoding="utf-8")
    return weights, card


class RunFacts(NamedTuple):
    """Facts in the folder of a run that are not in its weights file.

    Attributes:
        environment: versions and machine.
        seconds: duration of the training.
        outcome: sentences on early stopping and the epoch that was kept, if the run asked for them.
    """

    environment: dict[str, Any]
    seconds: float
    outcome: tuple[str, ...]


def run_facts(run: Path, trained: LoadedModel) -> RunFacts:
    """Facts of a run; raises CheckpointError if it is unfinished or incomplete."""
    rows, metric, config = read_metrics(run), trained.task.main_metric, trained.recipe.train
    if not is_finished(rows, metric, config):
        raise CheckpointError(
            f"the run in {run} is not finished: {len(rows)} of {config.epochs} epochs"
        )
    outcome = tuple(describe_outcome(rows, metric, config))
    return RunFacts(read_environment(run), rows[-1]["elapsed"], outcome)


def score_for_card(
    model: LoadedModel, source: str, *, data: Path | None, progress: bool
) -> tuple[Evaluation, Command]:
    """Scores on the test split, and the command that repeats them.

    Args:
        model: with the folder of the images in its recipe.
        source: the model in the command.
        data: folder with the data set, instead of the recipe's.
        progress: show a progress bar.

    Raises:
        DataError: the data are of another version than those the model was trained on.
    """
    score = score_model(model, "test", root=data, device=pick_device("auto"), progress=progress)
    if score.info.version != model.info.version:
        raise DataError(
            f"the test images are of {score.info.version}, but the model was trained on "
            f"{model.info.version}; give the data it was trained on"
        )
    root = data or model.recipe.data.root
    command = pacavit_command("evaluate", source, data=None if root is None else "ROOT")
    return score.evaluation, command
