"""The images that are offered fit the model."""

from pathlib import Path

import pytest
from PIL import Image

from pacavit.demo.examples import example_images


@pytest.mark.parametrize("dataset", ["digits", "shapes"])
def test_data_sets_without_files_bring_their_own(dataset: str, tmp_path: Path) -> None:
    files = example_images(tmp_path, dataset)
    assert [file.stem for file in files] == [f"{dataset}-{index}" for index in range(6)]
    for file in files:
        with Image.open(file) as image:
            assert image.mode == "RGB"


def test_all_others_get_drawings_and_a_photograph(tmp_path: Path) -> None:
    names = ["bird", "ship", "airplane", "automobile", "truck", "photograph"]
    assert [file.stem for file in example_images(tmp_path, "folder")] == names
