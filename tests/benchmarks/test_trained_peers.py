"""Networks with as many MACs, and their study with a network that trains in a second."""

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from pacavit import api, load_plugin, recipes
from pacavit.attention import ATTENTIONS
from pacavit.engine import build
from pacavit.engine.optim import create_optimizer
from pacavit.models import count_macs

LoadBenchmark = Callable[[str], ModuleType]
RECIPE = """
name = "tiny"
task = { name = "classification" }
data = { name = "tiny-stripes" }
model = { name = "tiny_net" }
train = { epochs = 2, batch_size = 10, lr = 0.02, device = "cpu", loggers = [] }
"""


def test_networks_have_the_macs_of_nano(load_benchmark: LoadBenchmark) -> None:
    """Within a tenth; and every setting that is tried fits each network."""
    networks = load_benchmark("peer_networks").NETWORKS
    trials = load_benchmark("trained_peers").TRIALS
    with torch.device("meta"):
        nano = count_macs(build.model(recipes.load("cifar10_nano").model, 10), (32, 32))
    for name, network in networks.items():
        for trial in trials.values():
            recipe = recipes.load("cifar10_nano_short", [*network.changes, *trial])
            with torch.device("meta"):
                model = build.model(recipe.model, 10)
            create_optimizer(model, recipe.train)
        macs = count_macs(model, recipe.task.input_size((32, 32)))
        assert macs == pytest.approx(nano, rel=0.1), name
        fallback = recipes.load("cifar10_nano_short", network.changes).train.optimizer_options
        weights = dict(model.named_parameters())
        assert all(name in weights for name in fallback["fallback_list"]), name
    assert {attention for attention in ATTENTIONS if attention != "paca"} <= networks.keys()


@pytest.mark.parametrize(("ratio", "epochs"), [(1.0, 6), (1.25, 5), (0.7, 9), (9.0, 1)])
def test_epochs_take_as_long_as_the_base(
    load_benchmark: LoadBenchmark, ratio: float, epochs: int
) -> None:
    assert load_benchmark("trained_peers").equal_epochs(ratio, 6) == epochs


def test_networks_are_trained_measured_and_resumed(
    load_benchmark: LoadBenchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_plugin(Path(__file__).parents[1] / "engine" / "tiny.py")
    recipe, results = tmp_path / "tiny.toml", tmp_path / "found.json"
    recipe.write_text(RECIPE)
    peers = load_benchmark("peer_networks")
    networks = {
        "paca, conv": peers.Network("clusters", ()),
        "wide": peers.Network("timm", ("model.options.width=12",), "wider"),
    }
    study = load_benchmark("trained_peers")
    monkeypatch.setattr(study, "NETWORKS", networks)
    monkeypatch.setattr(study, "TRIALS", {"as it is": (), "slow": ("train.lr=1e-6",)})
    words = ["--out", str(tmp_path / "out"), "--recipe", str(recipe), "--seeds", "0", "1"]
    words += ["--results", str(results), "--epochs", "2", "--trial-epochs", "1"]
    words += ["--steps", "3", "--rounds", "2", "--explained", "2"]
    with pytest.raises(SystemExit, match="paca, conv is not trained yet"):
        study.main(["measure", *words])
    study.main(["train", *words])
    study.main(["measure", *words])
    found = json.loads(results.read_text())
    assert list(found["networks"]) == ["paca, conv", "wide"]
    wide: dict[str, Any] = found["networks"]["wide"]
    assert wide["setting"] == max(wide["trials"], key=wide["trials"].get)
    assert wide["epochs"] == study.equal_epochs(wide["cost"]["ratio"], 2)
    assert [run["seed"] for run in wide["runs"]] == [0, 1]
    for run in wide["runs"]:
        assert run["test"]["num_images"] == 30
        assert set(run["explanations"]) == {"refused"}  # this network has no maps
        able = "corruptions" in inspect.signature(api.evaluate).parameters
        assert (run["corrupted"] is not None) == able
    assert wide["parameters"] > found["networks"]["paca, conv"]["parameters"]
    assert wide["inference"]["ratio"][1] > 0
    trial = json.loads((tmp_path / "out" / "wide-slow-trial-seed2" / "recipe.json").read_text())
    assert trial["train"]["lr"] == 1e-6
    assert trial["train"]["epochs"] == 1

    # Again: nothing is trained or measured, and the record is the same.
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("this was done before")

    monkeypatch.setattr(api, "train", refuse)
    monkeypatch.setattr(api, "evaluate", refuse)
    study.main(["measure", *words])
    assert json.loads(results.read_text()) == found
    study.main(["train", *words, "--only", "wide"])
    with pytest.raises(SystemExit):
        study.main(["train", *words, "--only", "narrow"])


@pytest.mark.slow
def test_maps_are_measured_of_networks_that_have_some(
    load_benchmark: LoadBenchmark, digits_run: Path, tmp_path: Path
) -> None:
    study = load_benchmark("trained_peers")
    run = shutil.copytree(digits_run, tmp_path / "run")
    found = study.explanations(run, None, 2)
    assert set(study.MAPS) <= found.keys()
    assert {"difference", "kept"} <= found["grad_cam"].keys()
    assert study.explanations(run, None, 2) == found
