"""The weights that ship do what their cards say."""

import re
from importlib import resources
from pathlib import Path

import pytest

from pacavit import api
from pacavit.engine import load_model, packaged_names
from pacavit.report.publishing.card import card_summary
from pacavit.report.publishing.packaging import MAX_BYTES

FOLDERS = {"cifar10": "data/cifar10-jpeg", "camvid": "data/camvid"}
"""Of the images that weights were trained on, by the first part of their names."""


@pytest.mark.parametrize("name", packaged_names())
def test_files_are_small_and_have_cards(name: str) -> None:
    folder = resources.files("pacavit") / "weights"
    assert len((folder / f"{name}.safetensors").read_bytes()) <= MAX_BYTES
    assert (folder / f"{name}.md").read_text("utf-8").startswith(f"# {name}\n")


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("name", packaged_names())
def test_the_card_has_the_score_on_the_test_split(name: str, shared_dir: Path) -> None:
    card = (resources.files("pacavit") / "weights" / f"{name}.md").read_text("utf-8")
    stated = re.search(r"test (?:accuracy|mIoU) (0\.\d{4})", card_summary(card))
    assert stated is not None
    evaluation = api.evaluate(name, data=shared_dir / FOLDERS[name.partition("_")[0]])
    # Another CPU rounds differently, which turns a few of 10,000 images over.
    score = evaluation.scores[load_model(name).task.main_metric]
    assert score == pytest.approx(float(stated[1]), abs=5e-4)
