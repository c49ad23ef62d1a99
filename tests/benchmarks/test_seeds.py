"""The study of seeds with two copies of a small run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from pacavit import api
from pacavit.errors import PacavitError

LoadBenchmark = Callable[[str], ModuleType]


@pytest.fixture
def runs(digits_run: Path, tmp_path: Path) -> Path:
    """Two seeds of a run, and one that is not finished."""
    folder = tmp_path / "runs"
    for seed in (0, 1, 2):
        run = shutil.copytree(digits_run, folder / f"conv-seed{seed}")
        recipe = json.loads((run / "recipe.json").read_text())
        recipe["train"]["seed"] = seed
        recipe["model"]["clustering"] = "conv"
        (run / "recipe.json").write_text(json.dumps(recipe))
    (folder / "conv-seed2" / "weights.safetensors").unlink()
    return folder


@pytest.mark.slow
def test_runs_are_measured_once(
    load_benchmark: LoadBenchmark,
    runs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study, results = load_benchmark("seeds"), tmp_path / "seeds.json"
    words = [str(runs), "--limit", "4", "--skip", "2", "--results", str(results)]
    study.main(words)
    assert "conv-seed2 is not finished" in capsys.readouterr().out
    found = json.loads(results.read_text())
    one = found["clusterings"]["conv"]
    assert one["seeds"] == [0, 1]
    stored = json.loads((runs / "conv-seed1" / "evaluation-test" / "evaluation.json").read_text())
    # The same weights twice.
    assert one["accuracy"] == [pytest.approx(stored["scores"]["accuracy"], abs=1e-4), 0]
    assert set(one["explanations"]) == set(study.METHODS)
    assert set(one["explanations"]["class_map"]) >= {"difference", "kept", "ROAD", "sensitivity"}
    assert [run["seed"] for run in found["runs"]] == [0, 1]
    monkeypatch.setattr(api, "evaluate", None)
    monkeypatch.setattr(api, "explain_evaluate", None)
    study.main(words)
    assert json.loads(results.read_text()) == found
    with pytest.raises(TypeError):  # other images are measured again
        study.main([*words, "--limit", "5"])


def test_means_and_standard_deviations(load_benchmark: LoadBenchmark) -> None:
    study = load_benchmark("seeds")
    assert study.spread([0.5, 0.7, 0.9]) == (0.7, 0.2)
    assert study.spread([0.5]) == (0.5, None)


def test_folders_that_are_no_study_are_refused(
    load_benchmark: LoadBenchmark, runs: Path, tmp_path: Path
) -> None:
    study = load_benchmark("seeds")
    with pytest.raises(PacavitError, match="holds no finished run"):
        study.finished_runs(tmp_path / "nowhere")
    shutil.copytree(runs / "conv-seed0", runs / "again")
    with pytest.raises(PacavitError, match="have the same clustering and seed"):
        study.finished_runs(runs)
    with pytest.raises(SystemExit, match=r"error: .* holds no finished run"):
        study.main([str(tmp_path)])
