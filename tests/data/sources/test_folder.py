from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pacavit.data import FileImages, Folder, MemoryImages, Split
from pacavit.data.formats import files as files_module
from pacavit.data.splits import split_of
from pacavit.errors import DataError

MakeFolder = Callable[..., Path]


def sizes(source: Folder) -> dict[str, int]:
    found = {}
    for split in ("train", "val", "test"):
        try:
            found[split] = len(source.load(split))
        except DataError:
            found[split] = 0
    return found


def names(source: Folder, split: Any) -> set[str]:
    images = source.load(split)
    assert isinstance(images, FileImages)
    return {str(images.path(index)) for index in range(len(images))}


def test_one_folder_is_parted_always_the_same_way(make_folder: MakeFolder) -> None:
    root = make_folder(num=20)
    source = Folder(root, in_memory=False)
    assert sizes(source) == {"train": 28, "val": 7, "test": 5}
    parts = [names(source, split) for split in ("train", "val", "test")]
    assert len(set.union(*parts)) == 40
    assert parts == [names(Folder(root, in_memory=False), s) for s in ("train", "val", "test")]
    assert source.info.class_names == ("ant", "bee")
    assert source.info.version.startswith("folder of 40 images in 2 classes (")


@pytest.mark.parametrize("num", [3, 9, 40])
def test_added_images_turn_no_training_image_into_another(
    make_folder: MakeFolder, num: int
) -> None:
    root = make_folder(num=num)
    before = names(Folder(root, in_memory=False), "train")
    pixels = (root / "ant" / "0.png").read_bytes()
    for number in range(30):
        (root / "ant" / f"0{number}.png").write_bytes(pixels)  # at the front of the listing
        source = Folder(root, in_memory=False)
        assert not before & (names(source, "val") | names(source, "test"))


def test_sizes_of_the_parts_can_be_given(make_folder: MakeFolder) -> None:
    assert sizes(Folder(make_folder(), val_size=2, test_size=4)) == {
        "train": 6,
        "val": 2,
        "test": 4,
    }


def test_folders_for_the_splits(make_folder: MakeFolder) -> None:
    make_folder("data/train")
    make_folder("data/valid", num=2)
    root = make_folder("data/testing", num=3).parent
    assert sizes(Folder(root)) == {"train": 12, "val": 4, "test": 6}
    with pytest.raises(DataError, match="val_size has no effect"):
        Folder(root, val_size=3)
    with pytest.raises(DataError, match="test_size has no effect"):
        Folder(root, test_size=3)


def test_folders_for_some_splits(make_folder: MakeFolder) -> None:
    root = make_folder("data/train", num=10).parent
    source = Folder(root)
    assert sizes(source) == {"train": 17, "val": 3, "test": 0}
    assert sizes(Folder(root, val_size=4, test_size=2)) == {"train": 14, "val": 4, "test": 2}
    with pytest.raises(DataError, match=r"has no test images: .*add the folder"):
        source.load("test")
    alone = make_folder("other/test").parent
    assert sizes(Folder(alone)) == {"train": 0, "val": 0, "test": 12}


def test_sizes_of_the_training_data_do_not_hinder_an_evaluation(make_folder: MakeFolder) -> None:
    classes = ("ant", "bee")
    make_folder("data/train", num=10)
    make_folder("data/val", num=2)
    root = make_folder("data/test", num=3).parent
    numbers: dict[Split, int] = {"train": 20, "val": 4, "test": 6}
    for split, number in numbers.items():
        source = Folder(root, val_size=3, test_size=3, classes=classes, evaluated=split)
        assert len(source.load(split)) == number
    alone = make_folder("alone/test").parent
    assert len(Folder(alone, test_size=3, classes=classes, evaluated="test").load("test")) == 12
    # Held out as in the training, if that fits what the split needs.
    bare = make_folder("bare", num=10)
    trained = Folder(bare, val_size=3, test_size=4, in_memory=False)
    found = Folder(bare, val_size=99, test_size=4, in_memory=False, evaluated="test")
    assert names(found, "test") == names(trained, "test")
    found = Folder(bare, val_size=3, test_size=4, in_memory=False, evaluated="val")
    assert names(found, "val") == names(trained, "val")
    with pytest.raises(DataError, match="cannot hold out 99 of 16"):
        Folder(bare, val_size=99, test_size=4, evaluated="val")


def test_a_class_may_be_called_train(make_folder: MakeFolder) -> None:
    assert Folder(make_folder(classes="bus train")).info.class_names == ("bus", "train")


def test_in_memory_or_in_files_the_pixels_are_the_same(make_folder: MakeFolder) -> None:
    root = make_folder()
    memory = Folder(root, image_size=16).load("train")
    files = Folder(root, image_size=16, in_memory=False).load("train")
    assert isinstance(memory, MemoryImages)
    assert isinstance(files, FileImages)
    everything = torch.arange(len(files))
    assert torch.equal(memory.images, files.batch(everything)[0])
    assert torch.equal(memory.labels, files.labels)


def test_broken_images_do_not_count(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "ant" / "2.png").write_text("no image")
    source = Folder(root, val_size=0, test_size=0)
    images = source.load("train")
    assert len(images) == 11
    assert list(images.broken) == [str(root / "ant" / "2.png")]


def test_what_a_user_can_get_wrong(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder()
    with pytest.raises(DataError, match="needed: name it with --data ROOT"):
        Folder()
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no class folders"):
        Folder(tmp_path / "empty")
    with pytest.raises(DataError, match=r"one class folder only, 'ant'"):
        Folder(make_folder("single", "ant"))
    with pytest.raises(DataError, match="holds images but no class folders"):
        Folder(root / "ant")
    with pytest.raises(DataError, match="cannot hold out 12 of 12 images"):
        Folder(root, test_size=12)
    with pytest.raises(DataError, match="class 'ant' has no images left to train on"):
        Folder(make_folder("few", num=1), test_size=1, val_size=0)
    monkeypatch.setattr(files_module, "_MEMORY_LIMIT", 1000)
    with pytest.raises(DataError, match=r"data\.options\.in_memory=false"):
        Folder(root).load("train")
    (root / "cat").mkdir()
    with pytest.raises(DataError, match="class 'cat' has no images in its folder"):
        Folder(root)


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, "train") for name in ("train", "Train", "TRAINING", "train2017", "training_set")),
        *((name, "val") for name in ("val", "Valid", "VALIDATION", "dev", "val2017", "val-set")),
        *((name, "test") for name in ("test", "Testing", "Test_Set", "test2017", "test set")),
        *((name, None) for name in ("train_old", "tset", "holdout", "cat", "train2", "set", "")),
    ],
)
def test_usual_spellings_of_splits(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    "folders",
    [("Train", "Valid", "Test"), ("TRAINING", "dev", "testing"), ("train2017", "val2017")],
)
def test_split_folders_in_any_case_and_spelling(
    make_folder: MakeFolder, folders: tuple[str, ...]
) -> None:
    for name, num in zip(folders, (6, 2, 3), strict=False):
        root = make_folder(f"data/{name}", num=num).parent
    source = Folder(root)
    assert source.info.class_names == ("ant", "bee")
    assert sizes(source) == {"train": 12, "val": 4, "test": 6 if len(folders) == 3 else 0}


@pytest.mark.parametrize(
    "name",
    ["train_old", "old-train", "tset", "trian", "vaild", "holdout", "hold_out", "eval", "tests"],
)
def test_folders_that_resemble_splits_are_refused(make_folder: MakeFolder, name: str) -> None:
    make_folder("data/Train")
    root = make_folder(f"data/{name}").parent
    with pytest.raises(
        DataError, match=rf"folders Train and also '{name}', .* validation, dev, test"
    ):
        Folder(root)


def test_two_folders_for_one_split_are_refused(make_folder: MakeFolder) -> None:
    make_folder("data/train")
    make_folder("data/val")
    root = make_folder("data/Valid").parent
    with pytest.raises(
        DataError, match="has 2 folders of val images, Valid and val; put them into"
    ):
        Folder(root)


def test_splits_without_class_folders_are_no_classes(make_folder: MakeFolder) -> None:
    root = make_folder(classes="Train Test")
    with pytest.raises(DataError, match="the folders Test and Train without class folders in them"):
        Folder(root)


def test_folders_beside_the_splits_are_reported(make_folder: MakeFolder) -> None:
    make_folder("data/train")
    root = make_folder("data/text").parent  # one letter off "test", but a word of its own
    (root / "test").mkdir()  # without labels, as in some competitions
    (root / "test" / "1.png").write_bytes((root / "train" / "ant" / "0.png").read_bytes())
    (root / "labels.csv").touch()
    (root / ".git").mkdir()
    source = Folder(root)
    assert source.note == (
        f"skipped in {root}: 2 folders beside the splits (test, text); 1 file of another kind "
        "(labels.csv); 1 hidden or system entry (.git)"
    )
    with pytest.raises(DataError, match="has no folder test with class folders"):
        source.load("test")
    assert Folder(make_folder("tidy")).note is None


def test_folders_are_matched_to_known_classes_by_name(make_folder: MakeFolder) -> None:
    """As when a model is evaluated on other data."""
    root = make_folder("data/test", "bee ant").parent
    known = ("wasp", "bee", "cat", "ant")
    source = Folder(root, classes=known)
    assert source.info.class_names == known
    assert source.info.version.startswith("folder of 12 images in 2 classes (")
    assert source.load("test").labels.tolist() == [1] * 6 + [3] * 6
    single = make_folder("single/test", "cat").parent
    assert Folder(single, classes=known).load("test").labels.tolist() == [2] * 6
    bare = make_folder("bare", "cat bee", num=20)
    assert set(Folder(bare, classes=known).load("test").labels.tolist()) == {1, 2}
    with pytest.raises(DataError, match=r"class folders 'ant'; 'bee' that the training images do"):
        Folder(root, classes=("cat", "dog"))
    with pytest.raises(DataError, match="names a class twice"):
        Folder(root, classes=("ant", "bee", "ant"))


def test_the_same_data_keep_version_and_splits_when_classes_are_given(
    make_folder: MakeFolder,
) -> None:
    root = make_folder(num=20)
    source, again = (
        Folder(root, in_memory=False),
        Folder(root, in_memory=False, classes=("ant", "bee")),
    )
    assert source.info == again.info
    for split in ("train", "val", "test"):
        assert names(source, split) == names(again, split)
