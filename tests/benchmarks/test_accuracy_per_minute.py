"""Tricks and the frontier with a network that trains in a second."""

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
train = { epochs = 2, batch_size = 10, lr = 0.02, device = "cpu", loggers = [] }
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    load_plugin(Path(__file__).parents[1] / "engine" / "tiny.py")
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def test_gains_are_those_in_equal_time(load_benchmark: LoadBenchmark) -> None:
    def row(setting: str, epochs: int, accuracy: float, minutes: float) -> dict[str, object]:
        return {
            "setting": setting,
            "epochs": epochs,
            "val_accuracy": accuracy,
            "cpu_minutes": minutes,
        }

    study = load_benchmark("accuracy_per_minute")
    rows = [row("base", 4, 0.80, 4.0), row("base", 8, 0.88, 15.0), row("base", 8, 0.90, 17.0)]
    # Half of the way from 4 to 16 minutes on a logarithmic scale: the base has .845 there.
    rows += [row("freezing", 6, 0.85, 7.0), row("freezing", 6, 0.86, 9.0)]
    rows += [row("lookahead", 6, 0.84, 8.0)]
    found = study.gains(rows)
    assert found["freezing"] == {"val_accuracy": 0.855, "cpu_minutes": 8.0, "gain": 0.01}
    assert found["lookahead"]["gain"] == -0.005
    assert study.chosen(found) == ["freezing"]
    both = {"whitening, fixed": {"gain": 0.01}, "whitening, fixed at first": {"gain": 0.02}}
    assert study.chosen(both) == ["whitening, fixed at first"]


def test_all_steps_are_recorded_and_resumed(
    load_benchmark: LoadBenchmark, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, results, picture = (
        load_benchmark("accuracy_per_minute"),
        *(tmp_path / name for name in ("found.json", "curve.png")),
    )
    words = ["--out", str(tmp_path / "out"), "--recipe", str(recipe), "--seeds", "0"]
    words += ["--results", str(results), "--picture", str(picture), "--val-size", "20"]
    words += ["--budgets", f"{recipe}:1", f"{recipe}:3"]
    with pytest.raises(SystemExit, match="has no tricks yet"):
        study.main(["frontier", *words])
    with pytest.raises(SystemExit, match="has no frontier yet"):
        study.main(["test", *words])
    first = ["tricks", *words, "--epochs", "1", "2", "3"]
    first += ["--only", "lookahead", "whitening, fixed at first"]
    study.main(first)
    found = json.loads(results.read_text())
    assert [(row["setting"], row["epochs"]) for row in found["tricks"]] == [
        ("base", 1),
        ("base", 2),
        ("base", 3),
        ("whitening, fixed at first", 2),
        ("lookahead", 2),
    ]
    assert all(row["cpu_minutes"] > 0 for row in found["tricks"])
    assert set(found["gains"]) == {"whitening, fixed at first", "lookahead"}
    assert set(found["test_time"][0]) == {"none", "flip", "flip_shift"}
    run = tmp_path / "out" / "whitening-fixed_at_first-2-seed0"
    trained = json.loads((run / "recipe.json").read_text())
    assert trained["train"]["whitening"] == 0.5
    assert trained["data"]["val_size"] == 20
    study.main(["frontier", *words, "--tricks", "lookahead"])
    study.main(["test", *words])
    found = json.loads(results.read_text())
    assert found["chosen"] == ["lookahead"]
    assert [row["epochs"] for row in found["frontier"]] == [1, 3]
    for row in found["frontier"]:
        folder = tmp_path / "out" / row["run"]
        assert json.loads((folder / "recipe.json").read_text())["train"]["lookahead"] == 5
        stored = json.loads((folder / "evaluation-test" / "evaluation.json").read_text())
        assert row["test"]["accuracy"] == stored["scores"]["accuracy"]
        assert row["test"]["num_images"] == 30
        assert set(row["test"]["test_time"]) == {"flip", "flip_shift"}
        assert row["parameters"] > 0
    assert picture.stat().st_size > 5000
    assert list(found["commands"]) == ["tricks", "frontier", "test"]

    # Again: nothing is trained or measured, and the record is the same.
    monkeypatch.setattr(api, "train", None)
    monkeypatch.setattr(api, "evaluate", None)
    study.main(first)
    study.main(["frontier", *words, "--tricks", "lookahead"])
    study.main(["test", *words])
    assert json.loads(results.read_text()) == found


def test_unknown_tricks_and_budgets_are_one_line(
    load_benchmark: LoadBenchmark,
    recipe: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = load_benchmark("accuracy_per_minute")
    words = ["frontier", "--out", str(tmp_path / "out"), "--recipe", str(recipe)]
    with pytest.raises(SystemExit):
        study.main([*words, "--tricks", "sorcery"])
    assert "no trick 'sorcery'; known: random flip, whitening" in capsys.readouterr().err
    words += ["--results", str(tmp_path / "found.json"), "--tricks", "lookahead"]
    with pytest.raises(SystemExit, match="expected RECIPE:EPOCHS"):
        study.main([*words, "--budgets", str(recipe)])
