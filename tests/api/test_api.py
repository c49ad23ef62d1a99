"""The Python functions where they differ from, or say more than, the command line."""

from pathlib import Path

import pytest
import timm

import pacavit
from pacavit import api, recipes
from pacavit.errors import PacavitError, RecipeError, UnknownNameError


def test_import_registers_the_models() -> None:
    assert "pacavit_nano" in timm.list_models("pacavit_*")


def test_public_names_exist() -> None:
    for name in pacavit.__all__:
        assert hasattr(pacavit, name), name


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("models", "pacavit_nano"),
        ("clusterings", "conv"),
        ("attentions", "paca"),
        ("recipes", "digits"),
        ("datasets", "digits"),
    ],
)
def test_lists_name_and_describe(kind: str, name: str) -> None:
    summaries = dict(api.list_names(kind))
    assert summaries[name]
    assert all("\n" not in summary for summary in summaries.values())


def test_unknown_list_suggests() -> None:
    with pytest.raises(UnknownNameError, match="'recipes'"):
        api.list_names("recipe")


def test_results_go_into_the_run_unless_told_otherwise(tmp_path: Path) -> None:
    assert api.results_folder(tmp_path, split="val") == tmp_path / "evaluation-val"
    assert api.results_folder(tmp_path, out="x") == Path("x")
    assert api.results_folder("some_weights") is None


def test_results_do_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PacavitError, match="is a file"):
        api.results_folder("some_weights", out=tmp_path / "file")


def test_a_recipe_object_takes_no_changes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="by name or file"):
        api.train(recipes.load("digits"), tmp_path / "run", set=["train.epochs=1"])
    assert not (tmp_path / "run").exists()
