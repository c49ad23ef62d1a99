"""The Python functions where they differ from, or say more than, the command line."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import timm

import pacavit
from pacavit import api, recipes
from pacavit.api import predicting, training
from pacavit.engine import LoadedModel, load_model
from pacavit.engine.inputs import Input
from pacavit.engine.predictor import Predicted
from pacavit.errors import PacavitError, RecipeError, UnknownNameError
from pacavit.recipes import Recipe
from pacavit.tasks.classification import ImagePrediction


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
        ("heads", "upernet"),
        ("recipes", "digits"),
        ("datasets", "digits"),
        ("formats", "onnx"),
    ],
)
def test_lists_name_and_describe(kind: str, name: str) -> None:
    summaries = dict(api.list_names(kind))
    assert summaries[name]
    assert all("\n" not in summary for summary in summaries.values())


def test_unknown_list_suggests() -> None:
    with pytest.raises(UnknownNameError, match="'recipes'"):
        api.list_names("recipe")


def test_results_are_written_into_the_run_by_default(tmp_path: Path) -> None:
    assert api.results_folder(tmp_path, split="val") == tmp_path / "evaluation-val"
    assert api.results_folder(tmp_path, out="x") == Path("x")
    assert api.results_folder("some_weights") is None


def test_packaged_weights_save_no_results_in_a_folder_of_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "packaged_names", lambda: ("some_weights",))
    Path("some_weights").mkdir()
    assert api.results_folder("some_weights") is None
    assert api.results_folder("./some_weights") == Path("some_weights/evaluation-test")


def test_results_do_not_replace_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PacavitError, match="is a file"):
        api.results_folder("some_weights", out=tmp_path / "file")


def test_a_recipe_object_takes_no_changes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="by name or file"):
        api.train(recipes.load("digits"), tmp_path / "run", set=["train.epochs=1"])
    assert not (tmp_path / "run").exists()


def test_data_folders_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path | None] = []

    def note(recipe: Recipe, out: Path, **_: bool) -> Path:
        seen.append(recipe.data.root)
        return out

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pacavit.engine.train", note)
    monkeypatch.setattr(training, "_report_training", lambda run, progress: None)
    api.train("digits", "run", data="rel")
    api.train("digits", "run", set=["data.root=rel"])
    api.train(recipes.load("digits", ["data.root=rel"]), "run")
    api.train("digits", "run")
    assert seen == [tmp_path / "rel"] * 3 + [None]


class EveryImageIsBroken:
    """In place of a predictor."""

    def __init__(self, model: LoadedModel) -> None:
        self.model = model

    @staticmethod
    def reader(inputs: Sequence[Input]) -> Sequence[Input]:
        return inputs

    @staticmethod
    def answer(inputs: Sequence[Input]) -> list[Predicted]:
        return [Predicted(each.name, None, "broken") for each in inputs]


def test_one_image_needs_no_list(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = EveryImageIsBroken(load_model("cifar10_nano_conv"))
    monkeypatch.setattr(predicting, "load_predictor", lambda *names, **options: predictor)
    images: list[str | Path | list[str]] = ["a.png", Path("a.png"), ["a.png"]]
    for image in images:
        assert api.predict("m", image) == [ImagePrediction(Path("a.png"), (), "broken")]
