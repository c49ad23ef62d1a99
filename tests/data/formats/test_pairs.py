"""Images and masks belong together by their names."""

import os
from pathlib import Path

import pytest
import torch

from pacavit.data.formats.pairs import Pairs, Unpaired, pair_folders
from pacavit.data.formats.walk import Skipped
from pacavit.errors import DataError


def pair(root: Path, images: str, masks: str) -> tuple[Pairs, Unpaired]:
    """Pair empty files of these names in two folders."""
    for folder, names in (("images", images), ("masks", masks)):
        (root / folder).mkdir()
        for name in names.split():
            (root / folder / name).parent.mkdir(exist_ok=True)
            (root / folder / name).touch()
    return pair_folders(root, root / "images", root / "masks", Skipped())


def names(pairs: Pairs) -> list[tuple[str, str]]:
    files = zip(pairs.files.tolist(), pairs.masks.tolist(), strict=True)
    return [(os.fsdecode(image), os.fsdecode(mask)) for image, mask in files]


def test_suffixes_of_files_do_not_matter(tmp_path: Path) -> None:
    pairs, unpaired = pair(
        tmp_path,
        "b.jpg a.jpg sub/c.png d_mask.png",
        "a.png b_Mask.png sub/c-label.tif d_mask_mask.png",
    )
    assert names(pairs) == [
        ("images/a.jpg", "masks/a.png"),
        ("images/b.jpg", "masks/b_Mask.png"),
        ("images/d_mask.png", "masks/d_mask_mask.png"),
        ("images/sub/c.png", "masks/sub/c-label.tif"),
    ]
    assert not unpaired
    assert names(pairs.at(torch.tensor([1]))) == [("images/b.jpg", "masks/b_Mask.png")]


def test_files_without_a_partner_are_named(tmp_path: Path) -> None:
    pairs, unpaired = pair(tmp_path, "a.jpg b.jpg c.jpg", "a.png d.png")
    assert len(pairs) == 1
    assert str(unpaired) == (
        "2 images have no mask (images/b.jpg; images/c.jpg), and 1 mask has no image (masks/d.png)"
    )


@pytest.mark.parametrize(
    ("images", "masks", "words"),
    [
        ("a.jpg a.png", "a.png", "images/a.jpg and images/a.png are for one image"),
        ("a.jpg", "a.png a_mask.png", "masks/a.png and masks/a_mask.png are for one image"),
        ("a.jpg b.jpg", "x.png", "none of the 2 images .* has a mask"),
        ("", "x.png", "no images in"),
        ("a.jpg", "x.txt", "no images in .*masks"),
    ],
)
def test_what_a_user_can_get_wrong(tmp_path: Path, images: str, masks: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        pair(tmp_path, images, masks)
