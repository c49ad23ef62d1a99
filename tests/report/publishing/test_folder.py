"""Folders for the Hugging Face hub."""

from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import ModelCard

import pacavit
from pacavit.engine import load_model
from pacavit.errors import CheckpointError
from pacavit.report.publishing import folder as publishing
from pacavit.tasks.classification.config import CropConfig


@pytest.fixture(scope="module")
def folder(digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "digits-paca"
    return pacavit.save_pretrained(
        digits_run, folder, repository="someone/digits-paca", license="mit"
    )


def test_everybody_loads_a_published_run(run: Path, folder: Path) -> None:
    images, trained = torch.randn(2, 3, 32, 32), load_model(run)
    expected = trained.task.model(images)
    networks = (
        pacavit.from_pretrained(folder),
        load_model(folder).task.model,
        timm.create_model(f"local-dir:{folder}", pretrained=True).eval(),
    )
    for network in networks:
        assert torch.equal(network(images), expected)
    facts = timm.data.resolve_model_data_config(networks[0])
    assert facts["mean"] == pytest.approx(trained.info.mean)
    assert facts["std"] == pytest.approx(trained.info.std)
    assert tuple(facts["input_size"]) == (3, *trained.info.image_size)
    assert pacavit.evaluate(folder).accuracy == pacavit.evaluate(run).accuracy
    names = {path.name for path in folder.iterdir()}
    assert names == {"README.md", "config.json", "model.safetensors"}


def test_card_is_filled_from_the_run(run: Path, folder: Path) -> None:
    card = ModelCard.load(folder / "README.md")
    accuracy = round(pacavit.evaluate(run).accuracy, 4)
    assert card.data.license == "mit"
    assert card.data.pipeline_tag == "image-classification"
    assert {result.metric_type for result in card.data.eval_results} == {"accuracy", "f1"}
    assert card.data.eval_results[0].metric_value == accuracy
    for part in (
        "# digits-paca",
        f"test accuracy {accuracy:.4f}",
        "pacavit predict hf-hub:someone/digits-paca IMAGE.png",
        "pacavit evaluate hf-hub:someone/digits-paca",
        "full-precision",
        "under mit.",
    ):
        assert part in card.text, part
    assert str(run) not in card.content


def test_only_finished_runs_and_free_folders(run: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        pacavit.save_pretrained(tmp_path, tmp_path / "hub")
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(CheckpointError, match="holds other files"):
        pacavit.save_pretrained(run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_crop_of_the_recipe_is_published(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = load_model(run)
    crop = CropConfig(interpolation="bicubic", eval_part=0.8)
    classifier = trained.classifier
    config = classifier.config.model_copy(update={"crop": crop})
    monkeypatch.setattr(classifier, "config", config)
    monkeypatch.setattr(publishing, "load_model", lambda _: trained)
    folder = pacavit.save_pretrained(run, tmp_path / "hub")
    network = timm.create_model(f"local-dir:{folder}", pretrained=True)
    facts = timm.data.resolve_model_data_config(network)
    assert (facts["interpolation"], facts["crop_pct"]) == ("bicubic", 0.8)
