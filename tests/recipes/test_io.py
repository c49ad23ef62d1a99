from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pacavit import recipes
from pacavit.errors import RecipeError, UnknownNameError
from pacavit.tasks import TASKS, Task, TaskConfig
from pacavit.tasks.classification import ClassificationConfig


def plain(**train: Any) -> dict[str, Any]:
    return {
        "name": "r",
        "task": {},
        "data": {"name": "digits"},
        "model": {"name": "pacavit_nano"},
        "train": {"epochs": 2, "batch_size": 8, "lr": 0.001, **train},
    }


def test_the_library_loads() -> None:
    assert {"digits", "cifar10_nano", "cifar10_nano_short"} <= set(recipes.names())
    for name in recipes.names():
        assert recipes.load(name).name == name


def test_a_recipe_is_read_back_unchanged(tmp_path: Path) -> None:
    data = plain(progressive=[[0.5, 24]]) | {"data": {"name": "digits", "root": "here"}}
    recipe = recipes.parse(data, "test")
    recipes.dump(recipe, tmp_path / "recipe.json")
    assert recipes.load(tmp_path / "recipe.json") == recipe
    assert recipes.load(tmp_path) == recipe
    assert recipe.data.root == Path("here")
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]


def test_a_toml_file_by_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\n[task]\n[data]\nname = "digits"\n[model]\nname = "pacavit_nano"\n'
        "num_clusters = [16, 8, 0]\n[train]\nepochs = 1\nbatch_size = 8\nlr = 1\n"
    )
    assert recipes.load(str(path)).model.num_clusters == (16, 8, 0)


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("train.epochs=5", "epochs", 5),
        ("train.lr = 1e-4", "lr", 1e-4),
        ("train.lr=1", "lr", 1.0),
        ("train.optimizer=sgd", "optimizer", "sgd"),
        ('train.optimizer="sgd"', "optimizer", "sgd"),
        ("train.compile=true", "compile", True),
        ("train.ema=null", "ema", None),
        ("train.optimizer_options.momentum=0.5", "optimizer_options", {"momentum": 0.5}),
        ("train.progressive=[[0.5, 24]]", "progressive", ((0.5, 24),)),
    ],
)
def test_overrides(override: str, field: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(plain(ema=0.9)))
    assert getattr(recipes.load(path, [override]).train, field) == value


def test_the_last_override_wins_and_may_reach_any_section() -> None:
    recipe = recipes.load(
        "digits", ["model.clustering=mlp", "model.clustering=conv", "task.label_smoothing=0.2"]
    )
    assert recipe.model.clustering == "conv"
    assert recipe.task.model_dump()["label_smoothing"] == 0.2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epocs=5", "unknown field 'train.epocs'; did you mean 'train.epochs'"),
        ("epochs=5", "unknown field 'epochs'; did you mean 'train.epochs'"),
        ("trian.epochs=5", "unknown field 'trian'; did you mean 'train'"),
        ("train.zzz=5", "unknown field 'train.zzz'; known: train.epochs"),
        ("train.epochs=many", "train.epochs = 'many': expected a valid integer"),
        ("train.epochs=2.5", "train.epochs = 2.5: expected a valid integer"),
        ("train.epochs=true", "train.epochs = True: expected a valid integer"),
        ("train.epochs=0", "train.epochs = 0: expected greater than or equal to 1"),
        ("train.lr=nan", "train.lr = nan: expected a finite number"),
        ("train.epochs=null", "train.epochs = None: expected a valid integer"),
        ("train.schedule=step", "train.schedule = 'step': expected 'linear', 'cosine' or"),
        ("train.schedule=steps", 'schedule = "steps" and lr_drops need each other'),
        ("train.lr_drops=[0.5]", 'schedule = "steps" and lr_drops need each other'),
        ("model.num_clusters=many", "model.num_clusters = 'many': expected"),
        ("model.num_clusters=[8, -1]", "model.num_clusters.1 = -1: expected"),
        ("model.clustering=3", "model.clustering = 3: expected a valid string or a valid"),
        ("train.progressive=[[0.5, 24], [0.2, 32]]", "increasing fractions"),
        ("train.epochs.x=1", "train.epochs has no fields inside"),
        ("train.epochs", "expected field.path=value"),
        ("=5", "expected field.path=value"),
        ("train..x=5", "expected field.path=value"),
    ],
)
def test_mistakes_are_one_line_that_names_the_field(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipes.load("digits", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_fields_and_further_faults_are_reported() -> None:
    data = plain()
    del data["train"]["lr"], data["model"]
    with pytest.raises(RecipeError, match=r"test: field 'model' is missing \(and 1 more\)"):
        recipes.parse(data, "test")


def test_unknown_and_unreadable_recipes(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'digits'"):
        recipes.load("digit")
    with pytest.raises(RecipeError, match="no recipe at"):
        recipes.load(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match="no recipe at"):
        recipes.load(tmp_path)
    for name, text in (("a.toml", "name = "), ("b.json", "{"), ("c.json", "[1]")):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(RecipeError, match=name):
            recipes.load(path)


def test_difference_names_the_first_field_but_not_the_place_of_the_data() -> None:
    one = recipes.parse(plain(), "test")
    moved = recipes.parse(plain() | {"data": {"name": "digits", "root": "there"}}, "test")
    other = recipes.parse(plain(optimizer_options={"eps": 1e-6}), "test")
    assert recipes.difference(one, moved) is None
    found = recipes.difference(one, other)
    assert found is not None
    assert found.startswith("train.optimizer_options")


def test_difference_counts_the_order_of_patterns() -> None:
    scales = {"stem.*": 2.0, "*.weight": 3.0}
    one = recipes.parse(plain(lr_scales=scales), "one")
    other = recipes.parse(plain(lr_scales=dict(reversed(scales.items()))), "other")
    assert recipes.difference(one, one) is None
    found = recipes.difference(one, other)
    assert found is not None
    assert "order of train.lr_scales" in found


@pytest.mark.parametrize(
    ("name", "epochs", "shift", "cutout"),
    [
        ("cifar10_nano_short", 6, 2, 0),
        ("cifar10_nano", 16, 4, 8),
        ("cifar10_nano_long", 48, 4, 8),
    ],
)
def test_the_recipes_of_nano_differ_in_length_and_augmentation_only(
    name: str, epochs: int, shift: int, cutout: int
) -> None:
    recipe = recipes.load(name)
    assert recipe.name == name
    assert recipe.train.epochs == epochs
    augment = recipe.task.model_dump()["augment"]
    assert (augment["shift"], augment["cutout"]) == (shift, cutout)
    equal = [f"train.epochs={epochs}", f"task.augment.shift={shift}"]
    equal += [f"task.augment.cutout={cutout}", f"name={name}", f"description={recipe.description}"]
    assert recipes.difference(recipes.load("cifar10_nano", equal), recipe) is None


BASE = """name = "base"
description = "of the base"
[task]
augment = { flip = "random", shift = 2 }
[data]
name = "digits"
[model]
name = "pacavit_nano"
num_clusters = [16, 8, 0]
[train]
epochs = 3
batch_size = 8
lr = 1.0
"""


def write(folder: Path, **texts: str) -> Path:
    """Files NAME.toml in a folder; returns the last one."""
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text)
    return folder / f"{list(texts)[-1]}.toml"


def test_a_recipe_extends_a_file_beside_it(tmp_path: Path) -> None:
    middle = 'extends = "base.toml"\nname = "middle"\n[model]\nnum_clusters = 4\n'
    changes = 'extends = "middle.toml"\nname = "last"\n[task.augment]\nshift = 1\n'
    recipe = recipes.load(write(tmp_path / "folder", base=BASE, middle=middle, last=changes))
    assert (recipe.name, recipe.description) == ("last", "")
    assert recipe.model.num_clusters == 4
    assert recipe.train.epochs == 3
    task = recipe.task.model_dump()
    assert task["augment"]["flip"] == "random"
    assert task["augment"]["shift"] == 1


def test_a_recipe_extends_a_packaged_one(tmp_path: Path) -> None:
    text = 'name = "mine"\nextends = "cifar10_nano"\n[train]\nepochs = 1\n'
    recipe, base = recipes.load(write(tmp_path, mine=text)), recipes.load("cifar10_nano")
    assert recipe.train == base.train.model_copy(update={"epochs": 1})
    assert (recipe.task, recipe.model, recipe.data) == (base.task, base.model, base.data)
    assert recipes.load(write(tmp_path, mine=text), ["train.epochs=2"]).train.epochs == 2


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"a": 'name = "a"\nextends = "cifar10_nanno"'}, "did you mean 'cifar10_nano'"),
        ({"a": 'name = "a"\nextends = "none.toml"'}, "no recipe at"),
        ({"a": 'name = "a"\nextends = 3'}, "extends = 3: expected the name of a recipe"),
        ({"a": 'extends = "cifar10_nano"'}, "field 'name' is missing"),
        ({"a": 'extends = "../x/a.toml"'}, "extends itself"),
        ({"b": 'extends = "a.toml"', "a": 'extends = "b.toml"'}, "extends itself"),
        ({"b": "name =", "a": 'extends = "b.toml"'}, "b.toml cannot be read"),
    ],
)
def test_what_cannot_be_extended_is_one_line(
    texts: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "x", **texts)
    with pytest.raises((RecipeError, UnknownNameError), match=message) as caught:
        recipes.load(path)
    assert "\n" not in str(caught.value)


def test_packaged_recipes_win_over_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "mine"):
        (tmp_path / name).mkdir()
        recipes.dump(recipes.parse(plain(), "test"), tmp_path / name / "recipe.json")
    assert recipes.load("digits").name == "digits"
    assert recipes.load("mine").name == recipes.load("./digits").name == "r"


class SpottingConfig(TaskConfig):
    """The config of a task that only these tests know."""

    window: tuple[int, int]


@pytest.fixture
def spotting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers the task for one test."""
    kind = type("Spotting", (Task,), {"config_type": SpottingConfig})
    monkeypatch.setattr(TASKS, "_entries", TASKS._entries | {"spotting": kind})


@pytest.mark.usefixtures("spotting")
def test_the_task_of_a_recipe_is_looked_up_by_its_name(tmp_path: Path) -> None:
    data = plain() | {"task": {"name": "spotting", "window": [1, 2]}}
    recipe = recipes.parse(data, "test")
    assert recipe.task == SpottingConfig(name="spotting", window=(1, 2))
    recipes.dump(recipe, tmp_path / "recipe.json")
    assert recipes.load(tmp_path) == recipe
    assert isinstance(recipes.parse(plain(), "test").task, ClassificationConfig)


@pytest.mark.usefixtures("spotting")
@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"name": "spoting"}, "unknown task 'spoting'; did you mean 'spotting'"),
        ({"name": "spotting"}, "test: field 'task.window' is missing"),
        ({"name": "spotting", "window": [1, "x"]}, "task.window.1 = 'x': expected a valid integer"),
        ({"name": "spotting", "window": [1, 2], "wndow": 1}, "did you mean 'task.window'"),
        ({"name": "spotting", "window": [1, 2], "label_smoothing": 0.1}, "unknown field"),
        ({"augment": {"shft": 1}}, "did you mean 'task.augment.shift'"),
        ({"name": 3}, "task.name = 3: expected a valid string"),
        (3, "task = 3: expected an object"),
    ],
)
def test_mistakes_in_the_task_are_one_line(task: object, message: str) -> None:
    with pytest.raises((RecipeError, UnknownNameError)) as caught:
        recipes.parse(plain() | {"task": task}, "test")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flatten_names_every_leaf() -> None:
    nested = {"a": {"b": 1, "c": {"d": [2, {"e": 3}]}}, "f": {}, "g": None}
    assert dict(recipes.flatten(nested)) == {
        "a.b": 1,
        "a.c.d": [2, {"e": 3}],
        "f": {},
        "g": None,
    }


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000 + "]" * 100_000,
        ".".join("a" * 100_000) + " = 1",
        "a = " + "9" * 5000,
        "#" * (2**20 + 1),
    ],
    ids=["nested", "dotted", "integer", "large"],
)
def test_a_recipe_beyond_the_bounds_is_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match="cannot be read") as caught:
        recipes.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.timeout(30)
def test_a_recipe_that_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(RecipeError, match=r"not a regular file|unknown recipe"):
            recipes.load(path)


def test_a_long_chain_of_extends_is_refused(tmp_path: Path) -> None:
    for number in range(1500):
        (tmp_path / f"{number}.toml").write_text(f'extends = "{number + 1}.toml"')
    with pytest.raises(RecipeError, match="chain of more than 16 recipes"):
        recipes.load(tmp_path / "0.toml")


@pytest.mark.parametrize(
    "override",
    ["train.epochs=" + "9" * 5000, "train.epochs=" + "[" * 5000, ".".join("a" * 5000) + "=1"],
)
def test_an_override_beyond_the_bounds_is_one_line(override: str) -> None:
    with pytest.raises(RecipeError, match="--set") as caught:
        recipes.load("digits", [override])
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "override",
    [
        "task.image_size=100000",
        "task.image_size=0",
        "model.num_clusters=1000000000",
        "model.options.embed_dims=[1000000000,1,1]",
        "model.options.depths=[1000,1000,1]",
        "train.epochs=1000000000000",
        "train.batch_size=1000000000000",
        "train.progressive=[[0.5,100000]]",
        "data.num_workers=1000000",
    ],
)
def test_absurd_sizes_are_refused_by_the_schema(override: str) -> None:
    with pytest.raises(RecipeError, match=override.partition("=")[0].rpartition(".")[2]):
        recipes.load("digits", [override])


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_data_folder_that_is_not_utf8_is_written_as_a_uri(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / os.fsdecode(b"caf\xe9 100%")
    recipe = recipes.load("digits", [f"data.root={root.name}"])
    assert recipe.data.root == root
    recipes.dump(recipe, tmp_path / "recipe.json")
    text = (tmp_path / "recipe.json").read_text("utf-8")
    assert f'"root": "file://{tmp_path}/caf%E9%20100%25"' in text
    assert recipes.load(tmp_path / "recipe.json") == recipe
    assert recipes.difference(recipe, recipes.load("digits")) is None
    with pytest.raises(RecipeError, match=r"model\.init = 'caf\\xe9' is not UTF-8"):
        recipes.load("digits", [os.fsdecode(b"model.init=caf\xe9")])


def test_home_in_the_data_folder_of_a_recipe_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert recipes.load("digits", ["data.root=~/birds"]).data.root == Path("/home/me/birds")
    assert recipes.load("digits", ["data.root=birds/~"]).data.root == Path("birds/~")
