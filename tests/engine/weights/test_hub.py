"""Networks as folders of the Hugging Face hub, without the hub."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors.torch import save_file

from pacavit.engine import load_model
from pacavit.engine.weights import hub
from pacavit.engine.weights.hub import from_pretrained, save_pretrained
from pacavit.errors import CheckpointError, PacavitError, RecipeError, UnknownNameError
from pacavit.models import PacaViT
from pacavit.utils import files

SMALL: dict[str, Any] = {
    "embed_dims": (8, 12),
    "depths": (2, 1),
    "num_heads": (2, 2),
    "num_clusters": (4, 0),
    "drop_path_rate": 0.1,
}


def build(**settings: Any) -> Any:  # Any: submodules are not typed
    return timm.create_model("pacavit_nano", **{**SMALL, **settings}).eval()


def same(one: Any, other: Any, in_chans: int = 3) -> bool:
    images = torch.randn(2, in_chans, 24, 32)
    return torch.equal(one(images), other(images))


@pytest.mark.parametrize(
    "settings",
    [{}, {"clustering": "mlp", "num_classes": 0, "global_pool": ""}, {"in_chans": 1}],
)
def test_a_network_comes_back_from_its_folder(settings: dict[str, Any], tmp_path: Path) -> None:
    model = build(**settings)
    folder = save_pretrained(model, tmp_path / "deep" / "net", "# A card\n")
    state = torch.get_rng_state()
    again: Any = from_pretrained(folder)
    assert torch.equal(torch.get_rng_state(), state)
    in_chans = settings.get("in_chans", 3)
    assert not again.training
    assert same(model, again, in_chans)
    assert same(model, timm.create_model(f"local-dir:{folder}", pretrained=True).eval(), in_chans)
    assert again.settings["num_clusters"] == [4, 0]
    assert "drop_path_rate" not in again.settings
    assert (folder / "README.md").read_text() == "# A card\n"
    assert same(model, from_pretrained(save_pretrained(again, folder, "# Again\n")), in_chans)


def test_changes_since_it_was_built_are_stored(tmp_path: Path) -> None:
    model = build().with_clustering("random", num_clusters=3, seed=5)
    model.reset_classifier(2)
    facts = {"mean": (0.1, 0.2, 0.3)}
    save_pretrained(model, tmp_path, "", class_names=["cat", "dög"], facts=facts)
    again: Any = from_pretrained(tmp_path)
    assert again.stages[0].blocks[0].clustering.seed == 5
    assert same(model, again)
    assert list(again.pretrained_cfg["label_names"]) == ["cat", "dög"]
    assert timm.data.resolve_model_data_config(again)["mean"] == [0.1, 0.2, 0.3]
    save_pretrained(again, tmp_path, "")
    assert json.loads((tmp_path / "config.json").read_text())["label_names"] == ["cat", "dög"]


def test_another_number_of_classes_gets_a_fresh_classifier(tmp_path: Path) -> None:
    model = build()
    save_pretrained(model, tmp_path, "")
    other: Any = from_pretrained(tmp_path, num_classes=5)
    images = torch.randn(2, 3, 24, 32)
    assert other(images).shape == (2, 5)
    assert torch.equal(other.forward_features(images), model.forward_features(images))
    assert from_pretrained(tmp_path, num_classes=0)(images).shape == (2, 12)
    with pytest.raises(CheckpointError, match=r"fc1\.weight is missing"):
        from_pretrained(tmp_path, num_classes=5, clustering="mlp")
    maps: Any = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True)
    assert [feature.shape[1] for feature in maps(images)] == [8, 12]


def test_cut_networks_are_not_saved_as_whole_ones(tmp_path: Path) -> None:
    model = build()
    model.prune_intermediate_layers(1, prune_head=False)
    save_pretrained(model, tmp_path / "whole", "")  # the last stage was chosen: nothing is cut
    model.prune_intermediate_layers([0])
    with pytest.raises(RecipeError, match="have all their stages"):
        save_pretrained(model, tmp_path / "cut", "")


@pytest.mark.parametrize("every", [1, (2, 0)])
def test_teachers_added_later_are_restored(every: Any, tmp_path: Path) -> None:
    model = build(recluster_every=every)
    with_teacher = model.with_clustering("teacher")
    for number, network in enumerate((with_teacher, with_teacher.with_clustering("conv"))):
        folder = save_pretrained(network, tmp_path / str(number), "")
        assert same(network, from_pretrained(folder))


def test_what_cannot_be_rebuilt_is_not_saved(tmp_path: Path) -> None:
    names = {key: value for key, value in SMALL.items() if key != "drop_path_rate"}
    with pytest.raises(RecipeError, match="built by name"):
        save_pretrained(PacaViT(**names), tmp_path / "new", "")
    with pytest.raises(RecipeError, match="cannot be stored"):
        save_pretrained(build(act_layer=torch.nn.SiLU), tmp_path / "new", "")
    with pytest.raises(RecipeError, match="3 class names for 10 classes"):
        save_pretrained(build(), tmp_path / "new", "", class_names=["a", "b", "c"])
    file = tmp_path / "file"
    file.touch()
    for used in (tmp_path, file):
        with pytest.raises(CheckpointError, match="holds other files"):
            save_pretrained(build(), used, "")
    assert not (tmp_path / "new").exists()


def test_an_interrupted_write_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Nothing is caught or cleaned up after it, as after SIGKILL."""

    for number in range(3):
        folder, written = tmp_path / str(number), list[Path]()

        def replace_file(
            path: Path, data: bytes, number: int = number, written: Any = written
        ) -> None:
            if len(written) == number:
                (path.parent / f".{path.name}.1.tmp").write_bytes(data[:9])
                raise Killed
            path.write_bytes(data)
            written.append(path)

        folder.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(files, "replace_file", replace_file)
            with pytest.raises(Killed):
                save_pretrained(build(), folder, "")
        save_pretrained(build(), folder, "")
        names = {path.name for path in folder.iterdir()}
        assert names == {"README.md", "config.json", "model.safetensors"}


class Bomb:
    """A pickle that would create a file if anything executed it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_broken_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    whole = save_pretrained(build(), tmp_path / "whole", "")
    config = (whole / "config.json").read_text()

    def folder(name: str, text: str, weights: bytes | None) -> Path:
        made = tmp_path / name
        made.mkdir()
        (made / "config.json").write_text(text)
        if weights is not None:
            (made / "model.safetensors").write_bytes(weights)
        return made

    executed = tmp_path / "executed"
    bomb = pickle.dumps(Bomb(executed))
    pickled = folder("pickled", config, None)
    (pickled / "pytorch_model.bin").write_bytes(bomb)
    foreign = folder("foreign", config, None)
    save_file({"a": torch.zeros(1)}, foreign / "model.safetensors")
    good = (whole / "model.safetensors").read_bytes()
    cases: list[tuple[Path, type[PacavitError], str]] = [
        (tmp_path / "missing", CheckpointError, "no folder at"),
        (tmp_path, CheckpointError, "cannot read a model from .*config.json"),
        (folder("garbled", "{", good), CheckpointError, "cannot read a model from"),
        (folder("list", "[]", good), CheckpointError, "cannot read a model from"),
        (folder("empty", "{}", good), CheckpointError, "architecture"),
        (
            folder("unknown", config.replace("pacavit_nano", "pacavit_nono"), good),
            UnknownNameError,
            "did you mean 'pacavit_nano'",
        ),
        (
            folder("option", config.replace('"depths"', '"depth"'), good),
            RecipeError,
            "no model can be built from",
        ),
        (pickled, CheckpointError, "no weights at"),
        (folder("bomb", config, bomb), CheckpointError, "not opened"),
        (folder("truncated", config, good[:-9]), CheckpointError, "no safetensors file"),
        (foreign, CheckpointError, "does not fit the model"),
    ]
    for source, error, message in cases:
        with pytest.raises(error, match=message) as caught:
            from_pretrained(source)
        assert "\n" not in str(caught.value)
    assert not executed.exists()
    with pytest.raises(CheckpointError, match="contains no recipe"):
        load_model(whole)


def test_repositories_are_fetched_without_pickles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build()
    folder, asked = save_pretrained(model, tmp_path, ""), []

    def download(repository: str, **options: Any) -> str:
        asked.append((repository, options))
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", download)
    assert same(model, from_pretrained("hf-hub:someone/net@v2"))
    files = ["model.safetensors", "config.json"]
    assert asked == [("someone/net", {"revision": "v2", "allow_patterns": files})]
    with pytest.raises(CheckpointError, match="contains no recipe"):
        load_model("hf-hub:someone/net")
    assert asked[1] == ("someone/net", {"revision": None, "allow_patterns": files})


@pytest.mark.parametrize(
    "error", [HFValidationError("bad\nname"), LocalEntryNotFoundError("offline")]
)
def test_repositories_out_of_reach_are_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(hub, "snapshot_download", download)
    for load in (from_pretrained, load_model):
        with pytest.raises(CheckpointError, match="cannot fetch hf-hub:someone/net") as caught:
            load("hf-hub:someone/net")
        assert "\n" not in str(caught.value)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"features_only": True}, RecipeError, "may not hold features_only"),
        ({"pruned": True}, RecipeError, "may not hold pruned"),
        ({"pretrained_cfg": {"file": "x"}}, RecipeError, "may not hold pretrained_cfg"),
        ({"embed_dims": [10**9, 8]}, RecipeError, "embed_dims"),
        ({"embed_dims": [10**5, 10**5]}, CheckpointError, "does not fit the model"),
        ({"depths": [1000, 1]}, CheckpointError, "does not fit the model"),
        ({"depths": [10**6, 1]}, RecipeError, "depths"),
        ({"num_classes": 10**6}, CheckpointError, "does not fit the model"),
        ({"num_classes": -1}, PacavitError, "model"),
        ({"num_heads": 0}, RecipeError, "num_heads 0 does not divide"),
    ],
)
def test_hostile_arguments_of_a_config_are_refused(
    changes: dict[str, Any], error: type[PacavitError], message: str, tmp_path: Path
) -> None:
    folder = save_pretrained(build(), tmp_path, "")
    config = json.loads((folder / "config.json").read_text())
    config["model_args"] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(error, match=message) as caught:
        from_pretrained(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["features_only", "pruned"])
def test_arguments_that_build_no_classifier_are_refused_by_name(name: str, tmp_path: Path) -> None:
    folder = save_pretrained(build(), tmp_path, "")
    with pytest.raises(RecipeError, match=f"from_pretrained may not hold {name}"):
        from_pretrained(folder, **{name: True})


@pytest.mark.parametrize("text", ['{"a":' * 100_000, '{"architecture": ' + "9" * 5000 + "}"])
def test_a_config_beyond_the_bounds_is_one_line(text: str, tmp_path: Path) -> None:
    folder = save_pretrained(build(), tmp_path, "")
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match="cannot read a model from"):
        from_pretrained(folder)
