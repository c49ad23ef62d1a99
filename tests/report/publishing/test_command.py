"""The command that repeats a run gives the very recipe again."""

from pathlib import Path

import pytest

from pacavit import recipes
from pacavit.errors import RecipeError
from pacavit.recipes import Recipe
from pacavit.report.publishing.command import changed_fields, training_command
from pacavit.tasks import TaskConfig
from pacavit.utils.command import Command


def options(command: Command, name: str) -> list[str]:
    words = command.argv
    return [words[index + 1] for index, word in enumerate(words) if word == name]


def repeated(recipe: Recipe) -> Recipe:
    return recipes.load(recipe.name, options(training_command(recipe), "--set"))


def test_an_unchanged_recipe_needs_no_settings() -> None:
    assert str(training_command(recipes.load("digits"))) == "pacavit train digits --out DIR"


@pytest.mark.parametrize(
    ("field", "placeholder"), [("model.init", "WEIGHTS"), ("train.teacher", "TEACHER")]
)
def test_models_are_named_only_if_everybody_has_them(field: str, placeholder: str) -> None:
    for source, shown in (
        ("cifar10_nano_mlp", "cifar10_nano_mlp"),
        ("timm:resnet18", "timm:resnet18"),
        ("/home/me/run", placeholder),
    ):
        command = str(training_command(recipes.load("digits", [f"{field}={source}"])))
        assert command.endswith(f"--set {field}={shown}")


def test_words_are_not_quoted() -> None:
    recipe = recipes.load("digits", ["model.clustering=mlp", "train.device=cuda:1"])
    command = str(training_command(recipe))
    assert command.endswith("--set model.clustering=mlp --set train.device=cuda:1")


@pytest.mark.parametrize(
    "changes",
    [
        ["train.lr=0.00001", "model.num_clusters=[4, 4, 0]", "train.ema=null"],
        ["train.compile=true", "train.progressive=[[0.5, 24], [0.8, 28]]"],
        ["task.augment.flip=random", "task.augment={flip = 'none', shift = 1}"],
        # Mappings: nested, with keys that need quotes, shorter than the packaged one, empty.
        ['train.lr_scales={"stages.*" = 2.0}'],
        ["train.lr_scales={}"],
        ["task.crop={}"],  # a section that the packaged recipe does without
        ["train.optimizer_options={betas = [0.9, 0.99]}"],
        ["train.optimizer_options.fused=null", "model.options={a = {b = [{c = 1}]}}"],
        ["model.clustering_options=[{scale = 2.0}, {}, {}]"],
        # Strings that are something else in TOML, or nothing at all.
        *(
            [f"description={text}"]
            for text in (
                "'true'",
                "'null'",
                "'inf'",
                "'3'",
                "'1e5'",
                "'2020-01-01'",
                "'[1]'",
                "''",
                "' a '",
                "'a = b'",
                "'it is \\'",
                '"a\\nb = 1"',
                '"\\u007f\\u0001\\U0001F600\\""',
            )
        ),
        [r"model.options={a = '1', b = 'true', c = 1.0, d = 1, e = '\\', f = 1e5}"],
    ],
)
def test_the_command_gives_the_recipe_again(changes: list[str]) -> None:
    recipe = recipes.load("digits", changes)
    again = repeated(recipe)
    assert again == recipe
    assert repr(again) == repr(recipe)  # 1 is not 1.0


def test_the_order_of_patterns_counts() -> None:
    recipe = recipes.load("cifar10_nano")
    patterns = dict(reversed(recipe.train.lr_scales.items()))
    train = recipe.train.model_copy(update={"lr_scales": patterns})
    recipe = recipe.model_copy(update={"train": train})
    assert list(repeated(recipe).train.lr_scales) == list(patterns)


@pytest.mark.parametrize("name", ["cifar10_nano", "of_my_own"])
def test_the_folder_of_the_data_is_not_named(name: str, tmp_path: Path) -> None:
    recipe = recipes.load("cifar10_nano", [f"data.root={tmp_path}", f"name={name}"])
    command = training_command(recipe)
    assert options(command, "--data") == ["ROOT"]
    assert str(tmp_path) not in str(command)


def test_a_recipe_of_ones_own_is_a_file() -> None:
    recipe = recipes.load("digits", ["name=of my own", "train.epochs=1"])
    assert str(training_command(recipe)) == "pacavit train 'of my own.toml' --out DIR"


@pytest.mark.parametrize("options", [{"a": [None]}, {"a.b": None}])
def test_what_cannot_be_written_is_an_error(options: dict[str, object]) -> None:
    recipe = recipes.load("digits")
    model = recipe.model.model_copy(update={"options": options})
    with pytest.raises(RecipeError, match=r"model\.options .*--set cannot express"):
        training_command(recipe.model_copy(update={"model": model}))


def test_another_task_is_a_change_as_a_whole() -> None:
    recipe = recipes.load("digits")
    other = recipe.model_copy(update={"task": TaskConfig(name="other")})
    assert changed_fields(other) == {"task"}
    assert options(training_command(other), "--set") == [
        'task={name = "other"}',
        "task.image_size=null",
    ]
