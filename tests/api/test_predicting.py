"""``pacavit.predict``: every kind of image, in a file and in batches."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pacavit import api
from pacavit.engine.predictor import ImageInput
from pacavit.errors import PacavitError
from pacavit.tasks.classification import ImagePrediction


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def test_all_kinds_of_images_have_the_same_prediction(digits_run: Path, image: Path) -> None:
    with Image.open(image) as opened:
        picture = opened.copy()
    pixels = np.array(picture)
    kinds: list[ImageInput] = [
        image,
        str(image),
        image.read_bytes(),
        picture,
        pixels,
        torch.from_numpy(pixels).permute(2, 0, 1),
        image.parent,  # a folder stands for its images
    ]
    together = api.predict(digits_run, kinds, batch_size=2)
    assert all(isinstance(each, ImagePrediction) for each in together)
    names = [Path(f"image {position}") for position in range(2, 6)]
    assert [each.path for each in together] == [image, image, *names, image]
    expected = dict(together[0].top)  # type: ignore[attr-defined]
    assert len(expected) == 5
    for kind, one in zip(kinds, together, strict=True):
        assert dict(one.top) == pytest.approx(expected, abs=1e-5)  # type: ignore[attr-defined]
        [alone] = api.predict(digits_run, kind)
        assert dict(alone.top) == pytest.approx(expected, abs=1e-5)  # type: ignore[attr-defined]


def test_wrong_images_are_named_by_position(digits_run: Path) -> None:
    wrong = [np.zeros((4, 4, 3)), b"no image", 7]
    found = api.predict(digits_run, wrong)  # type: ignore[arg-type]
    for position, (each, part) in enumerate(
        zip(found, ("float64", "image 1", "is a int"), strict=True)
    ):
        assert each.error is not None
        assert part in each.error
        assert each.path == Path(f"image {position}")


def test_the_file_holds_top_k_classes(digits_run: Path, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "p.json"
    [one] = api.predict(digits_run, image, top_k=2, out=out, device="cpu")
    assert json.loads(out.read_text()) == [one.to_dict()]
    assert len(one.to_dict()["top"]) == 2
    with pytest.raises(PacavitError, match="exists"):
        api.predict(digits_run, image, out=out)
    api.predict(digits_run, image, top_k=1, out=out, overwrite=True)
    assert len(json.loads(out.read_text())[0]["top"]) == 1


@pytest.mark.parametrize("option", ["top_k", "batch_size"])
def test_numbers_below_one_are_refused(digits_run: Path, image: Path, option: str) -> None:
    with pytest.raises(PacavitError, match=f"{option.replace('_', ' ')} must be at least 1, not 0"):
        api.predict(digits_run, image, **{option: 0})  # type: ignore[arg-type]
