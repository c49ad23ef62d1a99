"""The study of elastic clusters with a narrow network on a few digits."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from pacavit import api

LoadBenchmark = Callable[[str], ModuleType]
SIZES = "model.options={embed_dims=[16,16,32],num_heads=[2,2,2],stem_dims=[8,16]}"


@pytest.mark.slow
def test_one_training_is_measured_with_every_number(
    load_benchmark: LoadBenchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, results = load_benchmark("elastic"), tmp_path / "found.json"
    words = ["--out", str(tmp_path / "out"), "--recipe", "digits", "--results", str(results)]
    words += ["--picture", str(tmp_path / "curve.png"), "--most", "3", "--numbers", "1", "3"]
    words += ["--rounds", "2", "--batch-size", "2", "--set", SIZES, "--set", "train.epochs=1"]
    words += ["--set", "task.image_size=16"]
    study.main(words)
    found = json.loads(results.read_text())
    elastic, one, three = found["runs"]
    assert list(elastic["accuracy"]) == ["1", "2", "3"]
    assert list(one["accuracy"]) == ["1"]
    assert list(three["accuracy"]) == ["3"]
    assert list(found["milliseconds"]) == ["1", "2", "3"]
    recipes = [
        json.loads((tmp_path / "out" / f"{name}-seed0" / "recipe.json").read_text())["model"]
        for name in ("elastic", "clusters1", "clusters3")
    ]
    assert [model["num_clusters"] for model in recipes] == [[3, 3, 0], [1, 1, 0], [3, 3, 0]]
    assert recipes[0]["clustering_options"] == {"elastic": True}
    assert recipes[2]["clustering_options"] is None
    # All clusters are those of an ordinary evaluation.
    whole = api.evaluate(tmp_path / "out" / "elastic-seed0").scores["accuracy"]
    assert elastic["accuracy"]["3"] == pytest.approx(whole, abs=1e-4)
    assert (tmp_path / "curve.png").stat().st_size > 5000

    # Again: nothing is trained or measured, and the record is the same.
    monkeypatch.setattr(api, "train", None)
    monkeypatch.setattr(study, "evaluate", None)
    monkeypatch.setattr(study, "take_turns", None)
    study.main(words)
    assert json.loads(results.read_text()) == found
    with pytest.raises(SystemExit):
        study.main([*words, "--numbers", "4"])
