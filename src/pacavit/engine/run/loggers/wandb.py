"""Numbers for Weights & Biases (extra ``wandb``)."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from pacavit.engine.run.loggers.base import LOGGERS, Logger, settings
from pacavit.recipes.schema import Recipe
from pacavit.utils import files

__all__ = ["WandbLogger"]

_PROJECT = "pacavit"
_RUN_FILE = "wandb.json"


@LOGGERS.register("wandb")
class WandbLogger(Logger):
    """Weights & Biases: numbers of steps and epochs, and the recipe as its config.

    W&B's own variables say where to: ``WANDB_MODE=offline`` only writes into the run folder,
    ``WANDB_PROJECT`` ("pacavit" if it is not set), ``WANDB_ENTITY``. A resumed run goes on in the
    same W&B run. Console output, source code, git state and facts about the machine are not sent.
    """

    package = "wandb"

    def __init__(self, out: Path, recipe: Recipe, first_step: int) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when it is imported
        import wandb

        file = out / _RUN_FILE
        if file.is_file():
            run_id: str = json.loads(file.read_text(encoding="utf-8"))["run_id"]
        else:
            run_id = secrets.token_hex(8)
            files.replace_file(file, json.dumps({"run_id": run_id}).encode())
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            dir=str(out),
            name=out.name,
            id=run_id,
            resume="allow",
            config=settings(recipe),
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_code=True,
                disable_git=True,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
            ),
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Hand numbers to W&B's own process, which collects and sends them."""
        self.run.log(dict(values), step=step)

    def close(self, *, finished: bool) -> None:
        """End the session of the W&B run."""
        self.run.finish(exit_code=0 if finished else 1)
