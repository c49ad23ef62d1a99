"""Numbers for MLflow (extra ``mlflow``)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pacavit.engine.run.loggers.base import LOGGERS, Logger, settings
from pacavit.recipes.schema import Recipe
from pacavit.utils import files

__all__ = ["MlflowLogger"]

_EXPERIMENT = "pacavit"
_RUN_FILE = "mlflow.json"
_SECONDS = 10.0  # between two batches of numbers
_MOST_METRICS, _MOST_PARAMS, _LONGEST = 1000, 100, 500  # limits of MLflow's log_batch


@LOGGERS.register("mlflow")
class MlflowLogger(Logger):
    """MLflow: numbers of steps and epochs, and the recipe as parameters.

    MLflow's own variables say where to: ``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME``
    ("pacavit" if it is not set). A resumed run goes on in the same MLflow run. MLflow's telemetry
    is off, unless ``MLFLOW_DISABLE_TELEMETRY`` says otherwise.
    """

    package = "mlflow"

    def __init__(self, out: Path, recipe: Recipe, first_step: int) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when it is imported
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self.metric = Metric
        self.client = MlflowClient()
        self.run_id = self._run(out, recipe)
        params = [Param(name, str(value)[:_LONGEST]) for name, value in settings(recipe).items()]
        for start in range(0, len(params), _MOST_PARAMS):
            self.client.log_batch(self.run_id, params=params[start : start + _MOST_PARAMS])
        self.waiting: list[Any] = []
        self.sent = time.monotonic()

    def _run(self, out: Path, recipe: Recipe) -> str:
        """The MLflow run of the run folder, or a new one."""
        file = out / _RUN_FILE
        if file.is_file():
            run_id: str = json.loads(file.read_text(encoding="utf-8"))["run_id"]
            self.client.update_run(run_id, status="RUNNING")
            return run_id
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        experiment = self.client.get_experiment_by_name(name)
        number = (
            self.client.create_experiment(name) if experiment is None else experiment.experiment_id
        )
        run_id = self.client.create_run(number, run_name=out.name).info.run_id
        files.replace_file(file, json.dumps({"run_id": run_id}).encode())
        return run_id

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Collect numbers, and send them every few seconds."""
        now = int(time.time() * 1000)
        self.waiting += [self.metric(name, value, now, step) for name, value in values.items()]
        if time.monotonic() - self.sent >= _SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send what was collected."""
        while self.waiting:
            self.client.log_batch(self.run_id, metrics=self.waiting[:_MOST_METRICS])
            del self.waiting[:_MOST_METRICS]
        self.sent = time.monotonic()

    def close(self, *, finished: bool) -> None:
        """Send the rest, and set the status of the MLflow run."""
        self.flush()
        self.client.set_terminated(self.run_id, "FINISHED" if finished else "KILLED")
