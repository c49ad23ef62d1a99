from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pacavit import recipes
from pacavit.errors import RecipeError, UnknownNameError


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


def test_a_recipe_survives_its_file(tmp_path: Path) -> None:
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
    assert recipe.task.label_smoothing == 0.2


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
        ("train.schedule=step", "train.schedule = 'step': expected 'linear' or 'cosine'"),
        ("model.num_clusters=many", "model.num_clusters = 'many': expected"),
        ("model.num_clusters=[8, -1]", "model.num_clusters.1 = -1: expected"),
        ("model.clustering=3", "model.clustering = 3: expected a valid string or a valid"),
        ("train.progressive=[[0.5, 24], [0.2, 32]]", "rising fractions"),
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


def test_missing_fields_and_further_faults_are_told() -> None:
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
