"""The list of all fields of recipes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import pacavit.recipes
from pacavit.recipes.fields import FIELDS_FILE, RecipeField, recipe_fields
from pacavit.recipes.schema import DataConfig, ModelConfig, TrainConfig
from pacavit.tasks import TASKS, TaskConfig
from pacavit.tasks.multilabel import MultilabelConfig
from pacavit_cli.main import main

PACKAGE = Path(pacavit.recipes.__path__[0])


@pytest.fixture
def fields() -> dict[str, RecipeField]:
    # Of the fields of one name in several tasks, the first task's.
    return {field.name: field for field in reversed(recipe_fields())}


def dotted(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inside = field.default_factory() if field.default_factory else None  # type: ignore[call-arg]
        if isinstance(inside, BaseModel):
            yield from dotted(type(inside), f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}"


def test_no_field_is_missing_and_each_is_described(fields: dict[str, RecipeField]) -> None:
    for section, model in (
        ("data", DataConfig),
        ("model", ModelConfig),
        ("train", TrainConfig),
        ("task", MultilabelConfig),
    ):
        assert set(dotted(model, section)) <= set(fields)
    # Other tests may have loaded plug-ins, whose tasks need no descriptions.
    own = [each for each in fields.values() if set(each.tasks) <= {"classification", "multilabel"}]
    assert all(field.description and field.type for field in own)


@pytest.mark.parametrize(
    ("name", "kind", "default"),
    [
        ("train.epochs", "integer at least 1", ""),
        ("train.warmup", "number from 0 to 1", "0.1"),
        ("train.ema", "number above 0 and below 1 or null", "null"),
        ("train.keep", '"best" or "last"', '"last"'),
        ("train.class_weights", '"balanced" or table of numbers above 0 or null', "null"),
        ("train.lr_scales", "table of numbers above 0", "{}"),
        (
            "train.progressive",
            "list of [number from 0 to 1, integer from 1 to 4096] or null",
            "null",
        ),
        (
            "model.num_clusters",
            "integer from 0 to 16384 or list of integers from 0 to 16384 or null",
            "null",
        ),
        ("data.root", "path or null", "null"),
        ("train.compile", "true or false", "false"),
        ("task.crop", "table or null", "null"),
        (
            "task.crop.scale",
            "[number above 0 and at most 1, number above 0 and at most 1]",
            "[0.08, 1.0]",
        ),
        ("task.augment.flip", '"none" or "random" or "alternate"', '"none"'),
    ],
)
def test_types_and_defaults_are_in_words(
    fields: dict[str, RecipeField], name: str, kind: str, default: str
) -> None:
    assert (fields[name].type, fields[name].default) == (kind, default)


def test_the_packaged_copy_is_that_of_the_schema() -> None:
    # In a process of its own, because other tests register tasks here.
    code = (
        "import json\n"
        "from pacavit.recipes.fields import recipe_fields\n"
        "print(json.dumps([field._asdict() for field in recipe_fields()]))"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=PACKAGE.parents[1], capture_output=True, check=True).stdout
    packaged = json.loads((PACKAGE / FIELDS_FILE).read_text(encoding="utf-8"))
    assert packaged == json.loads(found), "write it anew: python -m pacavit.recipes.fields"


def test_fields_of_one_task_name_it(fields: dict[str, RecipeField]) -> None:
    assert fields["task.threshold"].tasks == ("multilabel",)
    assert fields["task.image_size"].tasks == ()


class Kind(Enum):
    SMALL = "small"
    LARGE = "large"


class StrangerConfig(TaskConfig):
    kind: Kind = Kind.SMALL
    anything: Any
    margins: tuple[int, ...] = ()


def test_a_plug_in_need_not_describe_its_fields(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    TASKS.names()
    stranger = type("Stranger", (), {"config_type": StrangerConfig})
    monkeypatch.setitem(TASKS._entries, "stranger", stranger)
    own = [field for field in recipe_fields() if field.tasks == ("stranger",)]
    assert [(field.name, field.type, field.default) for field in own] == [
        ("task.kind", '"small" or "large"', '"small"'),
        ("task.anything", "any value", ""),
        ("task.margins", "list of integers", "[]"),
    ]
    assert main(["fields", "stranger"]) == 0
    assert "task.anything  (any value; required)\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("section", "first", "absent"),
    [
        ("train", "train.epochs", "model.name"),
        ("model", "model.name", "train.epochs"),
        ("train.lr", "train.lr", "train.lr_scales"),
        ("task.mix", "task.mix.mixup", "task.augment.flip"),
        ("multilabel", "task.name", "task.label_smoothing"),
        ("classification", "task.name", "task.threshold"),
    ],
)
def test_the_command_prints_what_is_asked_for(
    section: str, first: str, absent: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fields", section]) == 0
    printed = capsys.readouterr().out
    names = [
        line.split()[0] for line in printed.splitlines() if line.endswith(")") and line[0] != " "
    ]
    assert names[0] == first
    assert absent not in names


def test_the_command_prints_all(
    fields: dict[str, RecipeField], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fields"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{name}  (" in printed for name in fields)
    assert max(map(len, printed.splitlines())) <= 120


def test_an_unknown_section_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fields", "trian"]) == 2
    error = "error: unknown section or field 'trian'; did you mean 'train' or 'train.lr'?\n"
    assert capsys.readouterr().err == error


def test_printing_fields_loads_no_torch() -> None:
    code = (
        "import sys\n"
        "from pacavit_cli.main import main\n"
        "assert main(['fields', 'train']) == 0\n"
        "loaded = {'pacavit', 'torch', 'timm', 'numpy'} & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, cwd=PACKAGE.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "train.epochs  (integer at least 1; required)" in done.stdout
