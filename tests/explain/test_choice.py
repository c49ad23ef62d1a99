"""Which maps are shown by default: measured ones, or two that were not measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm

from pacavit.engine.weights.load import LoadedModel, load_model, weights_digest
from pacavit.errors import CheckpointError
from pacavit.explain.choice import FOLDER, NUMBERS, choose_maps

MakeModel = Callable[..., LoadedModel]


def measurement(model: LoadedModel, **scores: float) -> dict[str, Any]:
    """What explain-evaluate records, as far as the choice reads it."""
    return {
        "data": "birds, test split",
        "num_images": 1200,
        "weights_sha256": weights_digest(model),
        "methods": [
            {"method": name, "predicted": {"difference": [score, score - 0.1, score + 0.1]}}
            for name, score in scores.items()
        ],
    }


def write(folder: Path, content: Any) -> Path:
    folder.mkdir()
    (folder / NUMBERS).write_text(json.dumps(content))
    return folder


@pytest.fixture
def model(digits_run: Path, tmp_path: Path) -> LoadedModel:
    """A run of its own folder on handwritten digits."""
    shutil.copytree(digits_run, tmp_path / "run")
    return load_model(tmp_path / "run")


def test_the_default_of_packaged_weights_was_measured_on_their_data() -> None:
    choice = choose_maps(load_model("cifar10_nano_kmeans"))
    assert choice.methods == ("cluster_contributions",)
    assert choice.note == ""
    assert choice.command is None


def test_on_other_data_relevance_stands_beside_until_measured(model: LoadedModel) -> None:
    choice = choose_maps(model)
    assert choice.methods == ("cluster_contributions", "relevance")
    assert "Neither cluster contributions nor relevance was measured on images of digits" in (
        choice.note
    )
    run = str(model.path.parent)
    assert choice.command is not None
    expected = ["pacavit", "explain-evaluate", run, "--out", f"{run}/explain-evaluate"]
    assert choice.command.json == expected


def test_the_most_faithful_map_of_the_run_becomes_the_default(model: LoadedModel) -> None:
    scores = {"cluster_contributions": 0.4, "relevance": 0.5, "grad_cam": 0.1, "center": 0.3}
    write(model.path.parent / FOLDER, measurement(model, **scores))
    choice = choose_maps(model)
    assert choice.methods == ("relevance",)
    assert choice.command is None
    assert choice.note == (
        "The map by relevance was the most faithful of 3 measured on 1,200 images of birds, test "
        "split: insertion minus deletion is 0.500."
    )


def test_a_control_is_not_chosen_but_said_to_be_better(model: LoadedModel) -> None:
    folder = model.path.parent / FOLDER
    write(folder, measurement(model, cluster_gradient=0.2, center=0.3, random=0.1))
    choice = choose_maps(model)
    assert choice.methods == ("cluster_gradient",)
    assert "the control center, which ignores the network, is 0.300: do not believe" in choice.note
    assert "random" not in choice.note


def test_a_measurement_of_other_weights_does_not_count(model: LoadedModel) -> None:
    other = measurement(model, relevance=0.5) | {"weights_sha256": "0" * 64}
    folder = write(model.path.parent / FOLDER, other)
    assert len(choose_maps(model).methods) == 2
    with pytest.raises(CheckpointError, match=r"not hold a measurement of the weights in .*repeat"):
        choose_maps(model, folder)


def test_a_measurement_can_be_given(model: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    file = shutil.copy(model.path, tmp_path / "weights" / "a.safetensors")
    lone = replace(model, path=Path(file))
    assert "--measured" in choose_maps(lone).note
    folder = write(tmp_path / "measured", measurement(model, relevance=0.5))
    assert choose_maps(lone, folder).methods == ("relevance",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no measurement at .*; pacavit explain-evaluate writes one"),
        ("{", "cannot be read .*; remove it, and repeat"),
        ("[]", "cannot be read .*not a JSON object"),
        ('{"methods": 1}', "does not hold a measurement of the weights"),
    ],
)
def test_what_is_no_measurement_is_refused(
    model: LoadedModel, tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / NUMBERS).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        choose_maps(model, tmp_path)


@pytest.mark.parametrize("methods", [[], [{"method": "relevance"}], 3, [{"method": "center"}]])
def test_a_measurement_without_scores_is_refused(model: LoadedModel, methods: Any) -> None:
    folder = model.path.parent / FOLDER
    write(folder, measurement(model) | {"methods": methods})
    with pytest.raises(CheckpointError, match=r"faithfulness\.json cannot be read"):
        choose_maps(model)


def test_networks_without_clusters_have_one_map_that_was_not_measured(
    bright_model: MakeModel,
) -> None:
    model = bright_model()
    model.task.model = timm.create_model("resnet18", num_classes=2)
    choice = choose_maps(model)
    assert choice.methods == ("grad_cam",)
    assert "The map by grad cam was not measured" in choice.note
    assert choice.command is not None
