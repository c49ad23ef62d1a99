"""The study of distillation with a network that trains in a second."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from pacavit import api, load_plugin

LoadBenchmark = Callable[[str], ModuleType]
RECIPE = """
name = "tiny"
task = { name = "classification" }
data = { name = "tiny-stripes" }
model = { name = "tiny_net" }
train = { epochs = 2, batch_size = 10, lr = 0.02, device = "cpu" }
"""


@pytest.mark.parametrize(
    ("ratio", "most", "expected"),
    [
        (4 / 3, 8, (8, 6)),
        (1.2, 8, (6, 5)),
        (1.0, 8, (8, 8)),
        (1.5, 8, (6, 4)),
        (2.0, 8, (8, 4)),
        (3.0, 1, (1, 1)),
    ],
)
def test_epochs_take_the_same_time(
    load_benchmark: LoadBenchmark, ratio: float, most: int, expected: tuple[int, int]
) -> None:
    assert load_benchmark("distillation").equal_epochs(ratio, most) == expected


def test_a_study_is_recorded_and_resumed(
    load_benchmark: LoadBenchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_plugin(Path(__file__).parents[1] / "engine" / "tiny.py")
    recipe, out, results = tmp_path / "tiny.toml", tmp_path / "out", tmp_path / "found.json"
    recipe.write_text(RECIPE)
    teacher = api.train(recipe, tmp_path / "teacher")
    words = ["--out", str(out), "--recipe", str(recipe), "--teacher", str(teacher)]
    words += ["--steps", "3", "--max-epochs", "2", "--pilot-epochs", "1", "--seeds", "0", "1"]
    study = load_benchmark("distillation")
    study.main([*words, "--results", str(results)])
    found = json.loads(results.read_text())
    assert found["cost"]["ratio"] > 0
    assert set(found["pilot"]) == {"soft", "hard"}
    accuracies = {targets: one["val_accuracy"] for targets, one in found["pilot"].items()}
    assert accuracies[found["targets"]] == max(accuracies.values())
    kinds = [(run["kind"], run["seed"]) for run in found["runs"]]
    assert kinds == [("plain", 0), ("distilled", 0), ("plain", 1), ("distilled", 1)]
    for run in found["runs"]:
        folder = out / f"{run['kind']}-seed{run['seed']}"
        recipe_of_run = json.loads((folder / "recipe.json").read_text())
        assert recipe_of_run["train"]["epochs"] == run["epochs"]
        assert (recipe_of_run["train"]["teacher"] is None) == (run["kind"] == "plain")
        assert len(run["val_accuracy_by_epoch"]) == run["epochs"]
        assert run["test"]["num_images"] == 30

    # Again: nothing is trained or measured, and the record is the same.
    monkeypatch.setattr(api, "train", None)
    monkeypatch.setattr(api, "evaluate", None)
    study.main([*words, "--results", str(results)])
    assert json.loads(results.read_text()) == found
    with pytest.raises(SystemExit, match="the pilot needs a seed of its own"):
        study.main([*words, "--pilot-seed", "1"])
