"""Weights that ship."""

from pathlib import Path

import pytest

from pacavit import api
from pacavit.engine import load_model
from pacavit.errors import CheckpointError
from pacavit.report.publishing import packaging
from pacavit.report.publishing.packaging import package_weights


def test_card_has_the_numbers_of_the_stored_file(run: Path, tmp_path: Path) -> None:
    weights, card = package_weights(run, "digits_test", tmp_path / "weights")
    assert [weights.name, card.name] == ["digits_test.safetensors", "digits_test.md"]
    assert weights.stat().st_size < packaging.MAX_BYTES
    accuracy = api.evaluate(weights).accuracy
    text = card.read_text()
    assert f"accuracy {accuracy:.4f}" in text
    assert str(run) not in text
    assert "ROOT" not in text
    assert "half-precision" in text
    assert load_model(weights).recipe.train.epochs == 1


def test_the_commands_say_that_a_folder_is_needed(cifar10_folder: Path, tmp_path: Path) -> None:
    settings = ["train.epochs=1", "train.batch_size=8", "data.val_size=10"]
    run = api.train("cifar10_nano_short", tmp_path / "run", data=cifar10_folder, set=settings)
    weights, card = package_weights(run, "cifar10_test", tmp_path / "weights")
    text = card.read_text()
    assert "CIFAR-10 with 50 instead of 50,000 train images" in text
    assert "pacavit train cifar10_nano_short --out DIR --data ROOT --set data.val_size=10" in text
    assert "pacavit evaluate cifar10_test --data ROOT" in text
    assert str(cifar10_folder) not in text
    assert load_model(weights).recipe.data.root is None


def test_a_file_too_large_is_not_left_behind(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaging, "MAX_BYTES", 1000)
    with pytest.raises(CheckpointError, match="more than"):
        package_weights(run, "digits_test", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        package_weights(tmp_path, "name", tmp_path)
