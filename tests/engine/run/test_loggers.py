"""Loggers beside TensorBoard, whose tests are those of the run log.

MLflow and W&B are extras: stand-ins with the documented interface are tested everywhere, the
libraries themselves, without a network, where they are installed.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import pytest

from pacavit import recipes
from pacavit.engine import train
from pacavit.engine.run.log import read_metrics
from pacavit.engine.run.loggers import LOGGERS, Logger, check_loggers, create_loggers
from pacavit.errors import Interrupted, RecipeError, UnknownNameError
from pacavit.recipes import Recipe


def module(name: str, **contents: Any) -> ModuleType:
    made = ModuleType(name)
    made.__spec__ = ModuleSpec(name, None)
    made.__dict__.update(contents)
    return made


class Metric(NamedTuple):
    key: str
    value: float
    timestamp: int
    step: int


class Param(NamedTuple):
    key: str
    value: str


class Client:
    """MlflowClient, as far as it is used; keeps everything in ``store``."""

    store: dict[str, dict[str, Any]]

    def get_experiment_by_name(self, name: str) -> Any:
        known = {run["experiment"] for run in self.store.values()}
        return SimpleNamespace(experiment_id=f"id of {name}") if f"id of {name}" in known else None

    def create_experiment(self, name: str) -> str:
        return f"id of {name}"

    def create_run(self, experiment_id: str, run_name: str) -> Any:
        run_id = f"run {len(self.store)}"
        self.store[run_id] = {
            "experiment": experiment_id,
            "name": run_name,
            "metrics": [],
            "params": {},
            "status": "RUNNING",
        }
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def log_batch(
        self, run_id: str, metrics: Sequence[Metric] = (), params: Sequence[Param] = ()
    ) -> None:
        assert len(metrics) <= 1000
        assert len(params) <= 100
        run = self.store[run_id]
        run["metrics"] += metrics
        for key, value in params:
            assert run["params"].setdefault(key, value) == value  # MLflow refuses changes

    def update_run(self, run_id: str, status: str) -> None:
        self.store[run_id]["status"] = status

    def set_terminated(self, run_id: str, status: str) -> None:
        self.store[run_id]["status"] = status


@pytest.fixture
def mlflow_runs(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    Client.store = {}
    monkeypatch.setitem(sys.modules, "mlflow", module("mlflow"))
    entities = module("mlflow.entities", Metric=Metric, Param=Param)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setitem(
        sys.modules, "mlflow.tracking", module("mlflow.tracking", MlflowClient=Client)
    )
    return Client.store


class WandbRun:
    def __init__(self, options: dict[str, Any]) -> None:
        self.options, self.logged = options, list[tuple[int, Any]]()
        self.exit_code: int | None = None

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self, exit_code: int) -> None:
        self.exit_code = exit_code


@pytest.fixture
def wandb_runs(monkeypatch: pytest.MonkeyPatch) -> list[WandbRun]:
    runs: list[WandbRun] = []

    def init(**options: Any) -> WandbRun:
        runs.append(WandbRun(options))
        return runs[-1]

    stand_in = module("wandb", init=init, Settings=lambda **given: given)
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    return runs


def test_mlflow_gets_steps_epochs_and_the_recipe(
    mlflow_runs: dict[str, dict[str, Any]], make_recipe: Any, tmp_path: Path
) -> None:
    out = train(make_recipe(loggers=["mlflow"]), tmp_path / "mine", progress=False)
    (run,) = mlflow_runs.values()
    assert (run["experiment"], run["name"], run["status"]) == ("id of pacavit", "mine", "FINISHED")
    losses = [metric for metric in run["metrics"] if metric.key == "train/loss"]
    assert [metric.step for metric in losses] == list(range(1, 16))
    scores = [(each.step, each.value) for each in run["metrics"] if each.key == "val/accuracy"]
    assert scores == [(row["step"], row["val_accuracy"]) for row in read_metrics(out)]
    assert run["params"]["train.lr"] == "0.02"
    assert run["params"]["train.loggers"] == "['mlflow']"
    assert "data.root" not in run["params"]
    assert not (out / "tensorboard").exists()


def test_a_resumed_run_goes_on_in_its_mlflow_run(
    mlflow_runs: dict[str, dict[str, Any]], make_recipe: Any, stop_at: Any, tmp_path: Path
) -> None:
    recipe = make_recipe(loggers=["mlflow"])
    with stop_at(7), pytest.raises(Interrupted):
        train(recipe, tmp_path / "run", progress=False)
    assert [run["status"] for run in mlflow_runs.values()] == ["KILLED"]
    train(recipe, tmp_path / "run", resume=True, progress=False)
    (run,) = mlflow_runs.values()
    assert run["status"] == "FINISHED"
    steps = [metric.step for metric in run["metrics"] if metric.key == "train/loss"]
    assert steps == list(range(1, 16))


def test_wandb_gets_steps_epochs_and_the_recipe_and_is_resumed(
    wandb_runs: list[WandbRun], make_recipe: Any, stop_at: Any, tmp_path: Path
) -> None:
    recipe, out = make_recipe(loggers=["wandb", "tensorboard"]), tmp_path / "mine"
    with stop_at(7), pytest.raises(Interrupted):
        train(recipe, out, progress=False)
    train(recipe, out, resume=True, progress=False)
    first, second = wandb_runs
    assert (first.exit_code, second.exit_code) == (1, 0)
    assert first.options["id"] == second.options["id"] != ""
    assert first.options["project"] == "pacavit"
    assert first.options["resume"] == "allow"
    assert first.options["config"]["train.lr"] == 0.02
    assert "data.root" not in first.options["config"]
    steps = [step for run in wandb_runs for step, values in run.logged if "train/loss" in values]
    assert steps == list(range(1, 16))
    assert (out / "tensorboard").is_dir()


def test_wrong_loggers_are_refused_before_the_folder_is_made(
    make_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnknownNameError, match="unknown logger 'wandbb'; did you mean 'wandb'"):
        train(make_recipe(loggers=["wandbb"]), tmp_path / "run", progress=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"needs the library mlflow; .*'pacavit\[mlflow\]'"):
        train(make_recipe(loggers=["mlflow"]), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    check_loggers(["tensorboard"])  # is a dependency


class Unreachable(Logger):
    """Fails after some calls, as if the network was gone."""

    calls = 0

    def __init__(self, out: Path, recipe: Recipe, first_step: int) -> None:
        self.refuse = recipe.train.seed == 13
        if self.refuse:
            raise ConnectionError("no route\nto host")

    def log(self, values: Mapping[str, float], step: int) -> None:
        Unreachable.calls += 1
        if step == 7:
            raise ConnectionError("no route\nto host")

    def close(self, *, finished: bool) -> None:
        raise AssertionError("it failed before")


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    LOGGERS.names()
    monkeypatch.setitem(LOGGERS._entries, "unreachable", Unreachable)


@pytest.mark.usefixtures("unreachable")
def test_a_logger_that_fails_does_not_cost_a_run(
    make_recipe: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Unreachable.calls = 0
    train(make_recipe(loggers=["unreachable"]), tmp_path / "run")
    printed = capsys.readouterr().out
    warning = "warning: Unreachable failed and logs no more: ConnectionError: no route to host"
    assert printed.count(warning) == 1
    assert Unreachable.calls == 8  # 7 steps and an epoch
    assert len(read_metrics(tmp_path / "run")) == 3


@pytest.mark.usefixtures("unreachable")
def test_a_logger_that_cannot_start_is_one_line(make_recipe: Any, tmp_path: Path) -> None:
    recipe = make_recipe(loggers=["unreachable"], seed=13)
    with pytest.raises(RecipeError, match="'unreachable' cannot start: ConnectionError: no route"):
        train(recipe, tmp_path / "run", progress=False)


def test_no_logger_at_all(make_recipe: Any, tmp_path: Path) -> None:
    out = train(make_recipe(epochs=1, loggers=[]), tmp_path / "run", progress=False)
    assert not (out / "tensorboard").exists()
    assert create_loggers(out, make_recipe(loggers=[]), 1) == []


def test_mlflow_itself(make_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    out = train(make_recipe(loggers=["mlflow"]), tmp_path / "run", progress=False)
    client = MlflowClient()
    experiment = client.get_experiment_by_name("pacavit")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["model.name"] == "tiny_net"
    history = client.get_metric_history(run.info.run_id, "val/accuracy")
    rows = [(row["step"], row["val_accuracy"]) for row in read_metrics(out)]
    assert sorted((metric.step, metric.value) for metric in history) == rows


def test_wandb_itself(
    make_recipe: Any, stop_at: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    recipe, out = make_recipe(loggers=["wandb"]), tmp_path / "run"
    with stop_at(7), pytest.raises(Interrupted):
        train(recipe, out, progress=False)
    train(recipe, out, resume=True, progress=False)
    logs = list((out / "wandb").glob("offline-run-*/*.wandb"))
    assert len(logs) == 2
    assert b"train/loss" in b"".join(log.read_bytes() for log in logs)


def test_the_recipe_of_a_run_is_told_without_its_folder() -> None:
    from pacavit.engine.run.loggers.base import settings

    found = settings(recipes.load("digits", ["data.root=/home/me/private"]))
    assert found["train.epochs"] == recipes.load("digits").train.epochs
    assert not any("private" in str(value) for value in found.values())
