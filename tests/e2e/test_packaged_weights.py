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
CORRECT = {
    "cifar10_nano_dbscan": 1782,
    "cifar10_nano_gmm": 1799,
    "cifar10_nano_hierarchical": 1784,
    "cifar10_nano_kmeans": 1793,
    "cifar10_nano_long_mlp": 1830,
    "cifar10_nano_mlp": 1796,
}
"""How many of the first 2,000 test images are correct. Other weights are tested with all images."""


@pytest.mark.parametrize("name", packaged_names())
def test_files_are_small_and_have_cards(name: str) -> None:
    folder = resources.files("pacavit") / "weights"
    assert len((folder / f"{name}.safetensors").read_bytes()) <= MAX_BYTES
    assert (folder / f"{name}.md").read_text("utf-8").startswith(f"# {name}\n")


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in packaged_names() if name not in CORRECT])
def test_the_card_has_the_score_on_the_test_split(name: str, shared_dir: Path) -> None:
    card = (resources.files("pacavit") / "weights" / f"{name}.md").read_text("utf-8")
    stated = re.search(r"test (?:accuracy|mIoU) (0\.\d{4})", card_summary(card))
    assert stated is not None
    evaluation = api.evaluate(name, data=shared_dir / FOLDERS[name.partition("_")[0]])
    # Another CPU rounds differently, which turns a few of 10,000 images over.
    score = evaluation.scores[load_model(name).task.main_metric]
    assert score == pytest.approx(float(stated[1]), abs=5e-4)


@pytest.fixture(scope="module")
def first_images(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the first 2,000 test images of CIFAR-10."""
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path_factory.mktemp("cifar10")
    for path in (shared_dir / FOLDERS["cifar10"]).glob("*.parquet"):
        if path.name.startswith("test"):
            parquet.write_table(parquet.read_table(path).slice(0, 2000), folder / path.name)
        else:
            (folder / path.name).symlink_to(path.resolve())
    return folder


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("name", CORRECT)
def test_as_many_of_the_first_test_images_are_correct(name: str, first_images: Path) -> None:
    evaluation = api.evaluate(name, data=first_images)
    # Another CPU rounds differently, which turns a few over.
    assert 2000 * evaluation.scores["accuracy"] == pytest.approx(CORRECT[name], abs=2)
