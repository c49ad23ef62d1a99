"""Model cards and the weights that ship with them."""

from pathlib import Path
from typing import Any

import pytest
import timm

from pacavit import recipes
from pacavit.data import DATASETS
from pacavit.engine import Evaluation, LoadedModel, build
from pacavit.report.publishing.card import card_summary, model_card, with_clusterings
from pacavit.utils.command import pacavit_command

ENVIRONMENT: dict[str, Any] = {
    "versions": {"python": "3.11", "torch": "2.15"},
    "cpu": "Some CPU",
    "threads": 2,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    recipe = recipes.load("digits", ["model.clustering=mlp", "train.seed=7"])
    info = DATASETS.get("digits")().info
    task = build.task(recipe, info).eval()
    return LoadedModel(task, recipe, info, {}, Path("weights.safetensors"))


def test_the_card_has_use_results_training_and_limits(
    model: LoadedModel, evaluation: Evaluation
) -> None:
    card = model_card(
        "digits_mlp",
        model,
        evaluation,
        environment=ENVIRONMENT,
        seconds=90.0,
        evaluation_command=pacavit_command("evaluate", "digits_mlp"),
        outcome=["stopped after epoch 5 of 7", "kept the weights of epoch 2"],
    )
    assert card.startswith("# digits_mlp\n")
    assert "accuracy 0.8000" in card_summary(card)
    assert "mlp clustering" in card_summary(card)
    num_parameters = sum(parameter.numel() for parameter in model.task.model.parameters())
    for part in (
        f"{num_parameters:,} parameters",
        "M multiply-accumulates",
        "| macro | 0.8000 | 0.8100 | 0.8200 | 0.8300 |",
        r"| $dog\| | 0.7000 | 0.9000 | 0.8500 | 4 |",
        "seed 7",
        "\n- Stopped after epoch 5 of 7\n- Kept the weights of epoch 2\n- Time: 1.5 minutes",
        "1.5 minutes",
        "Some CPU, threads: 2",
        "pacavit predict digits_mlp IMAGE.png",
        "pacavit evaluate digits_mlp",
        "pacavit train digits --out DIR --set model.clustering=mlp --set train.seed=7",
        "32 x 32 pixels",
        "Apache-2.0",
    ):
        assert part in card, part


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("pacavit_nano", " with conv clustering (16, 16 clusters)"),
        ("resnet10t", ""),
    ],
)
def test_only_attentions_of_this_package_are_described(name: str, told: str) -> None:
    assert with_clusterings(timm.create_model(name)) == told


def test_networks_without_clusters_attend_fully() -> None:
    assert with_clusterings(timm.create_model("pacavit_nano", num_clusters=0)) == (
        " with full attention"
    )
