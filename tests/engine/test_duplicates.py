"""Runs on images that are in two splits."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pacavit.data import DataSource, ImageSet, Split
from pacavit.engine import build, train
from pacavit.engine import duplicates as module
from pacavit.engine.duplicates import check_duplicates
from pacavit.errors import DataError
from pacavit.recipes import Recipe, parse


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Class folders with images of noise; one validation image is a training image too."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("dark", "light"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for number in range(10):
                low = 100 * (name == "light")
                pixels = rng.integers(low, low + 150, (12, 12, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    data = tmp_path / "data"
    shutil.copy(data / "train" / "dark" / "3.png", data / "val" / "light" / "again.png")
    return data


def recipe(root: Path, **data: Any) -> Recipe:
    return parse(
        {
            "name": "files",
            "task": {"image_size": 12},
            "data": {"name": "folder", "root": str(root), "options": {"image_size": 12}, **data},
            "model": {"name": "tiny_net"},
            "train": {"epochs": 1, "batch_size": 5, "lr": 0.01, "device": "cpu"},
        },
        "the test's recipe",
    )


def loaded(source: DataSource) -> dict[Split, ImageSet]:
    return {"train": source.load("train"), "val": source.load("val")}


def test_exact_copies_are_refused_before_the_folder_is_made(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        train(recipe(root), tmp_path / "run", progress=False)
    text = str(caught.value)
    assert "\n" not in text
    assert f"{root}: 1 image is in two splits: val/light/again.png (val) equals train/" in text
    assert "data.duplicates=warn" in text
    assert not (tmp_path / "run").exists()


def test_allowed_copies_are_listed(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(recipe(root, duplicates="warn"), tmp_path / "run")
    printed = capsys.readouterr().out
    assert "warning: 1 image is in two splits: val/light/again.png (val) equals" in printed
    assert printed.index("images: 20 train, 21 val") < printed.index("warning: ")
    (row,) = csv.DictReader((run / "duplicates.csv").read_text().splitlines())
    assert row["other_image"] == str(root / "train" / "dark" / "3.png")


def test_a_run_may_ignore_copies(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(recipe(root, duplicates="ignore"), tmp_path / "run")
    assert "two splits" not in capsys.readouterr().out
    assert not (run / "duplicates.csv").exists()


def test_published_data_are_only_warned_of(root: Path) -> None:
    source = build.data_source(recipe(root))
    source.refuses_duplicates = False  # type: ignore[misc]
    splits = loaded(source)
    config = recipe(root).data
    assert len(check_duplicates(config, source, splits).warnings) == 1
    with pytest.raises(DataError, match="two splits"):
        check_duplicates(recipe(root, duplicates="refuse").data, source, splits)


def test_many_images_are_searched_only_on_request(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_IMAGES", 40)
    source = build.data_source(recipe(root))
    splits = loaded(source)
    found = check_duplicates(recipe(root).data, source, splits)
    assert not found.warnings
    assert found.lines == [
        "no search for duplicates across splits among more than 40 images; "
        "data.duplicates=warn searches"
    ]
    assert check_duplicates(recipe(root, duplicates="warn").data, source, splits).warnings
