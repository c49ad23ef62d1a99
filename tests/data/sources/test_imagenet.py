from collections.abc import Callable
from pathlib import Path

import pytest

from pacavit.data import FileImages, ImageNet
from pacavit.errors import DataError

MakeFolder = Callable[..., Path]
SYNSETS = "n01440764 n02012849 n03126707 mine"


@pytest.fixture
def root(make_folder: MakeFolder) -> Path:
    make_folder("imagenet/train", SYNSETS)
    return make_folder("imagenet/val", SYNSETS, num=2).parent


def test_official_validation_images_are_the_test_split(root: Path) -> None:
    source = ImageNet(root, val_size=8, image_size=32)
    splits = {split: source.load(split) for split in ("train", "val", "test")}
    assert {split: len(images) for split, images in splits.items()} == {
        "train": 16,
        "val": 8,
        "test": 8,
    }
    assert all(isinstance(images, FileImages) for images in splits.values())
    assert Path(splits["test"].location(0)).parent.parent.name == "val"
    assert Path(splits["val"].location(0)).parent.parent.name == "train"
    assert splits["val"].labels.bincount().tolist() == [2, 2, 2, 2]


def test_class_names_say_what_the_synsets_mean(root: Path) -> None:
    info = ImageNet(root, val_size=4).info
    assert info.class_names == (
        "mine",
        "tench, Tinca tinca",
        "crane (n02012849)",
        "crane (n03126707)",
    )
    assert "24 instead of 1,281,167 train images and 8 instead of 50,000" in info.version
    assert info.image_size == (224, 224)


def test_what_a_user_can_get_wrong(root: Path, make_folder: MakeFolder) -> None:
    with pytest.raises(DataError, match="name its folder with --data"):
        ImageNet()
    with pytest.raises(DataError, match="cannot hold out 10000 of 24 images"):
        ImageNet(root)
    with pytest.raises(DataError, match="val_size is 0"):
        ImageNet(root, val_size=0).load("val")
    flat = make_folder("flat/train", SYNSETS).parent
    with pytest.raises(DataError, match="has no folder val; ImageNet is train/ and val/"):
        ImageNet(flat)
    (flat / "val").mkdir()
    (flat / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")
    with pytest.raises(DataError, match="val holds images but no class folders"):
        ImageNet(flat)


def test_synsets_are_matched_to_the_classes_of_a_model(root: Path, make_folder: MakeFolder) -> None:
    """Of two cranes one stays: its class is still called by its synset."""
    known = ImageNet(root, val_size=4).info.class_names
    make_folder("part/train", "n03126707 mine")
    part = make_folder("part/val", "n03126707", num=3).parent
    source = ImageNet(part, val_size=2, classes=known)
    assert source.info.class_names == known
    assert known[3] == "crane (n03126707)"
    assert source.load("test").labels.tolist() == [3, 3, 3]
    assert set(source.load("train").labels.tolist()) == {0, 3}
    assert ImageNet(root, val_size=4, classes=known).info == ImageNet(root, val_size=4).info
    with pytest.raises(
        DataError, match=r"do not have: mine; n01440764 \(tench, Tinca tinca\); rem"
    ):
        ImageNet(root, val_size=4, classes=known[2:])


def test_system_folders_are_no_synsets(root: Path) -> None:
    (root / "train" / "n01440764" / "@eaDir").mkdir()
    (root / "train" / "n01440764" / "@eaDir" / "0.png").touch()
    source = ImageNet(root, val_size=8)
    assert len(source.load("train")) == 16
    assert source.note == (f"skipped in {root}: 1 hidden or system entry (train/n01440764/@eaDir)")


def test_a_few_training_images_do_not_hinder_an_evaluation(root: Path) -> None:
    assert len(ImageNet(root, evaluated="test").load("test")) == 8
    with pytest.raises(DataError, match="cannot hold out 10000 of 24 images"):
        ImageNet(root, evaluated="val")
