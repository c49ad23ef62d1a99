from __future__ import annotations

import json
import os
import pickle
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pacavit.data import Batch
from pacavit.engine import load_model, packaged_names, save_weights, train
from pacavit.engine.run.log import read_metrics
from pacavit.engine.weights import format as weights
from pacavit.engine.weights.fit import build_to_fit
from pacavit.errors import CheckpointError, PacavitError, RecipeError, UnknownNameError
from pacavit.recipes import Recipe

MakeRecipe = Callable[..., Recipe]


def describe(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        description: dict[str, Any] = json.loads(file.metadata()["pacavit"])
    return description


def test_a_run_folder_and_its_weights_file_give_the_same_model(finished: Path) -> None:
    batch = Batch.unlabeled(torch.randn(4, 3, 8, 8))
    state = torch.get_rng_state()
    folder, file = load_model(finished), load_model(str(finished / "weights.safetensors"))
    assert torch.equal(torch.get_rng_state(), state)
    assert folder.info.class_names == ("row", "column", "none")
    assert folder.recipe == file.recipe
    assert torch.equal(
        folder.classifier.predict(batch).logits, file.classifier.predict(batch).logits
    )
    assert folder.metrics["val_accuracy"] == read_metrics(finished)[-1]["val_accuracy"]


def test_a_plugin_that_has_changed_is_named(
    finished: Path, make_recipe: MakeRecipe, recwarn: pytest.WarningsRecorder
) -> None:
    file = finished / "environment.json"
    facts = json.loads(file.read_text())
    (now,) = facts["plugins"].values()
    then = "0123456789" + now[10:]
    weights = finished / "weights.safetensors"
    load_model(finished)
    assert not recwarn.list
    for recorded in ("tiny.py", "before.py"):
        file.write_text(json.dumps(facts | {"plugins": {recorded: then}}))
        for source in (finished, weights):
            with pytest.warns(UserWarning, match="plug-in") as caught:
                load_model(source)
            assert [str(each.message) for each in caught] == [
                f"the plug-in tiny.py (SHA-256 {now[:8]}…) is not the one that {finished} was "
                f"trained with, {recorded} (SHA-256 01234567…): results may differ"
            ]
    weights.unlink()
    with pytest.warns(UserWarning, match=r"the plug-in tiny\.py .*: results may differ"):
        train(make_recipe(), finished, resume=True, progress=False)
    assert json.loads(file.read_text())["plugins"] == {"before.py": then}


def test_weights_of_earlier_releases_call_the_version_of_the_data_copy(
    finished: Path, tmp_path: Path
) -> None:
    file = finished / "weights.safetensors"
    description = describe(file)
    assert description["data"]["version"] == "made by the tests"
    description["data"]["copy"] = description["data"].pop("version")
    old = tmp_path / "old.safetensors"
    save_file(load_file(file), old, {"pacavit": json.dumps(description)})
    assert load_model(old).info == load_model(file).info


def test_half_precision_is_read_as_fp32(finished: Path, tmp_path: Path) -> None:
    full = load_model(finished)
    path = tmp_path / "half.safetensors"
    save_weights(path, full.task.model, full.recipe, full.info, full.metrics, half=True)
    stored = load_file(path)
    assert stored["conv.weight"].dtype == torch.float16
    assert stored["norm.running_var"].dtype == torch.float32
    half = load_model(path)
    for name, value in half.task.model.state_dict().items():
        expected = full.task.model.state_dict()[name]
        assert value.dtype == expected.dtype
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-6)


def test_weights_do_not_name_folders(finished: Path, tmp_path: Path) -> None:
    loaded = load_model(finished)
    data = loaded.recipe.data.model_copy(update={"root": tmp_path})
    recipe = loaded.recipe.model_copy(update={"data": data})
    path = tmp_path / "weights.safetensors"
    save_weights(path, loaded.task.model, recipe, loaded.info, {})
    assert describe(path)["recipe"]["data"]["root"] is None
    assert str(tmp_path).encode() not in path.read_bytes()


def test_packaged_weights_are_found_by_name(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").mkdir()
    (finished / "weights.safetensors").rename(tmp_path / "weights" / "tiny_stripes.safetensors")
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    assert packaged_names() == ("tiny_stripes",)
    assert load_model("tiny_stripes").info.name == "tiny-stripes"
    with pytest.raises(UnknownNameError, match="did you mean 'tiny_stripes'"):
        load_model("tiny_stripe")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny_stripes").mkdir()
    assert load_model("tiny_stripes").info.name == "tiny-stripes"
    for folder in (Path("tiny_stripes"), f".{os.sep}tiny_stripes"):
        with pytest.raises(CheckpointError, match="is no run folder"):
            load_model(folder)


class Bomb:
    """A pickle that would create a file if anything executed it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("model", ["tiny_net", "pacavit_nano", "resnet18"])
def test_a_recipe_inside_weights_cannot_make_timm_open_files(
    model: str, finished: Path, tmp_path: Path
) -> None:
    loaded, executed = load_model(finished), tmp_path / "executed"
    pickled = tmp_path / "pickled.bin"
    pickled.write_bytes(pickle.dumps(Bomb(executed)))
    for options in (
        {"checkpoint_path": str(pickled)},
        {"pretrained": True, "pretrained_cfg": {"file": str(pickled)}},
        {"pretrained": True, "pretrained_cfg_overlay": {"url": pickled.as_uri()}},
    ):
        config = loaded.recipe.model.model_copy(update={"name": model, "options": options})
        recipe = loaded.recipe.model_copy(update={"model": config})
        evil = tmp_path / "evil.safetensors"
        save_weights(evil, loaded.task.model, recipe, loaded.info, {})
        with pytest.raises(RecipeError, match=r"model\.options may not hold") as caught:
            load_model(evil)
        assert "\n" not in str(caught.value)
        assert not executed.exists()


def test_files_that_are_no_weights_are_refused(finished: Path, tmp_path: Path) -> None:
    whole = finished / "weights.safetensors"
    truncated = tmp_path / "truncated.safetensors"
    truncated.write_bytes(whole.read_bytes()[:-100])
    pickled = tmp_path / "pickled.safetensors"
    pickled.write_bytes(pickle.dumps({"a": 1}))
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    broken = tmp_path / "broken.safetensors"
    save_file({"a": torch.zeros(1)}, broken, {"pacavit": json.dumps({"version": 1})})
    later = tmp_path / "later.safetensors"
    save_file({"a": torch.zeros(1)}, later, {"pacavit": json.dumps({"version": 99})})
    cases: list[tuple[str | Path, str]] = [
        (truncated, "truncated or no safetensors"),
        (pickled, "is a pickled checkpoint"),
        (foreign, "not written by pacavit"),
        (broken, "description inside .* is broken"),
        (later, "format version 99"),
        (tmp_path / "missing.safetensors", "no run folder or weights file"),
        (f"some{os.sep}where", "no run folder or weights file"),
        (tmp_path, "is no run folder"),
    ]
    for source, message in cases:
        with pytest.raises(CheckpointError, match=message) as caught:
            load_model(source)
        assert "\n" not in str(caught.value)


def test_tensors_that_do_not_fit_are_named(
    finished: Path, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    loaded = load_model(finished)
    path = tmp_path / "wide.safetensors"
    wide = make_recipe(model={"options": {"width": 9}})
    save_weights(path, loaded.task.model, wide, loaded.info, {})
    with pytest.raises(CheckpointError, match=r"conv\.weight is \(8, 3, 3, 3\) and must be \(9,"):
        load_model(path)
    state = loaded.task.model.state_dict() | {"extra": torch.zeros(1)}
    del state["head.bias"]
    with pytest.raises(CheckpointError, match=r"head\.bias is missing; extra is unexpected"):
        weights.load_state(loaded.task.model, state, "x")


def rewritten(source: Path, path: Path, field: str, value: Any) -> Path:
    """The same tensors with one field of the description replaced."""
    description = describe(source)
    *keys, last = field.split(".")
    inner = description
    for key in keys:
        inner = inner[key]
    inner[last] = value
    save_file(load_file(source), path, {"pacavit": json.dumps(description)})
    return path


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        *(
            ("recipe.task.image_size", size, "task.image_size")
            for size in (10**5, 10**9, 10**12, 0, -1)
        ),
        *(("data.image_size", [size, 8], "image_size") for size in (10**5, 10**12, 0, -1)),
        *(("recipe.model.num_clusters", size, "num_clusters") for size in (10**9, -1)),
        ("recipe.model.clustering_options", {"n_iter": 10**9}, "n_iter"),
        ("recipe.model.options", {"depths": [10**6] * 3}, "depths"),
        ("recipe.model.options", {"width": 10**9}, "width"),
        ("recipe.model.options", {"width": 10**6}, "does not fit the model: conv"),
        ("recipe.model.options", {"pruned": True}, "pruned"),
        ("recipe.model.name", "vit_giant_patch14_224", "does not fit the model"),
        ("data.class_names", [], "class_names is empty"),
        ("data.class_names", [str(number) for number in range(10**5)], r"head\.weight is \(3, 8\)"),
        ("data.mean", [1e400, 0.0, 0.0], "mean"),
        ("data.std", [0.0, 1.0, 1.0], "std"),
        ("recipe", [], "not a table"),
        ("recipe.train.epochs", 10**12, "train.epochs"),
    ],
)
def test_absurd_descriptions_are_refused_before_anything_is_built(
    field: str,
    value: Any,
    message: str,
    finished: Path,
    tmp_path: Path,
) -> None:
    path = rewritten(
        finished / "weights.safetensors", tmp_path / "absurd.safetensors", field, value
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**29, hard))
    try:
        with pytest.raises(PacavitError, match=message) as caught:
            load_model(path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000 + "1" + "}" * 50_000, "9" * 5000])
def test_metadata_beyond_the_bounds_are_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"pacavit": text})
    with pytest.raises(CheckpointError, match=r"description inside .* is broken: it ") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_a_plugin_that_reads_its_tensors_is_built_without_a_sketch(finished: Path) -> None:
    class Reads(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(2))
            try:
                float(self.weight.detach().sum())
            except RuntimeError as error:
                raise RecipeError(f"refused: {error}") from error

    assert build_to_fit(Reads, {"weight": (2,)}, "x").weight.shape == (2,)


def test_layers_without_end_stop_when_the_file_has_no_more_tensors() -> None:
    built = 0

    def make() -> torch.nn.Module:
        nonlocal built
        layers = torch.nn.ModuleList()
        while True:
            layers.append(torch.nn.Linear(1, 1))
            built += 1

    with pytest.raises(CheckpointError, match="far larger"):
        build_to_fit(make, {"0.weight": (1, 1)}, "x")
    assert built < 200
