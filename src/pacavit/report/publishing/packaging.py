"""Turn a run into weights that ship: a small file and its model card."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pacavit.engine.evaluate import Evaluation
from pacavit.engine.run.environment import read_environment
from pacavit.engine.run.log import read_metrics
from pacavit.engine.scoring import score_model
from pacavit.engine.system import pick_device
from pacavit.engine.weights.format import save_weights
from pacavit.engine.weights.load import LoadedModel, load_model
from pacavit.errors import CheckpointError, DataError
from pacavit.report.publishing.card import model_card

__all__ = ["MAX_BYTES", "RunFacts", "package_weights", "run_facts", "score_for_card"]

MAX_BYTES = 4_000_000
"""Largest file that ships inside the package."""


def package_weights(
    run: Path, name: str, dest: Path, *, data: Path | None = None, progress: bool = False
) -> tuple[Path, Path]:
    """Write ``NAME.safetensors`` in half precision and ``NAME.md``, its model card.

    The card's scores are those of the written file, read back, on the test split.

    Args:
        run: folder of a finished run.
        name: of the weights; users will load them by it.
        dest: folder for the two files, made if it is not there.
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
        weights, trained.task.model, trained.recipe, trained.info, trained.metrics, half=True
    )
    if (size := weights.stat().st_size) > MAX_BYTES:
        weights.unlink()
        raise CheckpointError(
            f"weights of {trained.recipe.model.name} take {size / 1e6:.1f} MB, more than the "
            f"{MAX_BYTES / 1e6:g} MB that ship; package a smaller model"
        )
    # The file does not say where the images were; the run does.
    stored = replace(load_model(weights), recipe=trained.recipe)
    evaluation, command = score_for_card(stored, name, data=data, progress=progress)
    text = model_card(
        name, stored, evaluation, **facts._asdict(), evaluation_command=command, half=True
    )
    card.write_text(text, encoding="utf-8")
    return weights, card


class RunFacts(NamedTuple):
    """What a run's folder knows and its weights do not.

    Attributes:
        environment: versions and machine.
        seconds: of training.
    """

    environment: dict[str, Any]
    seconds: float


def run_facts(run: Path, trained: LoadedModel) -> RunFacts:
    """Facts of a finished run; raises CheckpointError if it is not finished or not complete."""
    rows, epochs = read_metrics(run), trained.recipe.train.epochs
    if len(rows) < epochs:
        raise CheckpointError(f"the run in {run} is not finished: {len(rows)} of {epochs} epochs")
    return RunFacts(read_environment(run), rows[-1]["elapsed"])


def score_for_card(
    model: LoadedModel, source: str, *, data: Path | None, progress: bool
) -> tuple[Evaluation, str]:
    """Scores on the test split, and the command that repeats them.

    Args:
        model: with the folder of the images in its recipe.
        source: what the command shall take as the model.
        data: folder with the data set, instead of the recipe's.
        progress: show a progress bar.

    Raises:
        DataError: they are not the data that the model was trained on, which the card names.
    """
    score = score_model(model, "test", root=data, device=pick_device("auto"), progress=progress)
    if score.info.copy != model.info.copy:
        raise DataError(
            f"the test images are of {score.info.copy}, and the model was trained on "
            f"{model.info.copy}; give those data, the card tells of no others"
        )
    command = ["pacavit", "evaluate", source]
    if (data or model.recipe.data.root) is not None:
        command += ["--data", "ROOT"]
    return score.evaluation, shlex.join(command)
