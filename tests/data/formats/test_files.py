import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pacavit.data import FileImages, describe_broken, fit_image, read_image
from pacavit.data.formats import files as files_module
from pacavit.data.formats.files import class_folders, class_names, fingerprint, list_images
from pacavit.data.formats.walk import Skipped
from pacavit.errors import DataError

MakeFolder = Callable[..., Path]


@pytest.fixture
def images(make_folder: MakeFolder) -> FileImages:
    root = make_folder()
    return FileImages(root, list_images(root, root, ("ant", "bee")), (8, 12))


def test_images_are_read_at_their_own_size_and_batched_at_one(images: FileImages) -> None:
    assert len(images) == 12
    assert images.labels.tolist() == [0] * 6 + [1] * 6
    assert torch.equal(images[7].image, read_image(images.root / "bee" / "1.png"))
    assert (int(images[7].target), images[7].index) == (1, 7)
    pixels, labels = images.batch(torch.tensor([0, 7]))
    assert pixels.shape == (2, 3, 8, 12)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels[1], fit_image(images[7].image, (8, 12)))
    assert labels.tolist() == [0, 1]


@pytest.mark.parametrize("few", [0, 256])
def test_broken_images_are_left_out_of_memory_and_reported(
    images: FileImages, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """With worker processes and without."""
    monkeypatch.setattr(files_module, "_FEW", few)
    images.path(3).write_bytes(b"no image")
    images.path(11).write_bytes(images.path(11).read_bytes()[:60])
    loaded = images.into_memory()
    assert loaded.labels.tolist() == [0] * 5 + [1] * 5
    assert list(loaded.broken) == [str(images.path(3)), str(images.path(11))]
    assert torch.equal(loaded.images[3], images.batch(torch.tensor([4]))[0][0])
    line = describe_broken(loaded.broken)
    assert line.startswith("2 images are left out: ")
    assert str(images.path(3)) in line
    assert loaded.to(torch.device("cpu")).broken == loaded.broken


def test_no_usable_image_is_an_error(images: FileImages) -> None:
    for index in range(len(images)):
        images.path(index).write_bytes(b"")
    with pytest.raises(DataError, match=r"no usable image in .*12 images.*\(and 9 more\)"):
        images.into_memory()


def test_the_pixel_limit_counts_as_broken(images: FileImages) -> None:
    limited = FileImages(
        images.root, list_images(images.root, images.root, ("ant", "bee")), (8, 8), max_pixels=150
    )
    loaded = limited.into_memory()
    assert 0 < len(loaded) < 12
    assert all("more than the limit" in reason for reason in loaded.broken.values())


def test_what_counts_as_a_class_and_an_image(make_folder: MakeFolder) -> None:
    root = make_folder()
    for name in (".cache", "__MACOSX"):
        (root / name).mkdir()
    (root / "loose.png").write_bytes(b"of no class")
    (root / "notes.txt").write_text("no class")
    (root / "ant" / "._0.png").write_bytes(b"a resource fork")
    (root / "ant" / "Thumbs.db").write_bytes(b"")
    (root / "bee" / "deeper").mkdir()
    (root / "bee" / "0.png").rename(root / "bee" / "deeper" / "0.PNG")
    assert class_names(root) == ("ant", "bee")
    skipped = Skipped()
    listing = list_images(root, root, ("ant", "bee"), skipped)
    assert len(listing) == 12
    assert skipped.describe() == (
        "skipped: 1 image outside of the class folders (loose.png); 1 file of another kind "
        "(notes.txt); 4 hidden or system entries (.cache, __MACOSX, ant/._0.png, ...)"
    )
    assert b"bee/deeper/0.PNG" in listing.files.tolist()


def test_the_fingerprint_follows_the_names(make_folder: MakeFolder) -> None:
    root = make_folder()
    before = fingerprint({"": list_images(root, root, ("ant", "bee"))})
    assert before == fingerprint({"": list_images(root, root, ("ant", "bee"))})
    (root / "ant" / "0.png").rename(root / "ant" / "zero.png")
    assert fingerprint({"": list_images(root, root, ("ant", "bee"))}) != before


def test_wrong_layouts(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder()
    with pytest.raises(DataError, match=r"no data folder .*nowhere; name one with --data"):
        class_names(root / "nowhere")
    with pytest.raises(DataError, match="is a file; give the folder"):
        class_names(root / "ant" / "0.png")
    with pytest.raises(DataError, match="holds images but no class folders"):
        list_images(root, root / "ant", ("ant",))
    with pytest.raises(DataError, match="has a class folder 'bee' that the training images"):
        list_images(root, root, ("ant",))
    (tmp_path / "hollow" / "ant").mkdir(parents=True)
    with pytest.raises(DataError, match="no images in the class folders of"):
        list_images(tmp_path / "hollow", tmp_path / "hollow", ("ant",))
    with pytest.raises(DataError, match="holds no class folders; it needs one"):
        list_images(tmp_path, tmp_path / "hollow" / "ant", ("ant",))


def test_classes_whose_names_are_not_utf8_have_escaped_names(make_folder: MakeFolder) -> None:
    root = make_folder(classes="ant", num=2)
    latin = root / os.fsdecode(b"ab\xe9ille")
    (root / "ant").rename(latin)
    (latin / "0.png").rename(latin / os.fsdecode(b"\xff.png"))
    assert class_folders(root) == {r"ab\xe9ille": latin.name}
    listing = list_images(root, root, (r"ab\xe9ille",))
    assert listing.files.tolist() == [b"ab\xe9ille/1.png", b"ab\xe9ille/\xff.png"]
    images = FileImages(root, listing, (8, 8))
    assert torch.equal(images[1].image, read_image(latin / os.fsdecode(b"\xff.png")))
    images.path(1).write_bytes(b"")
    loaded = images.into_memory()
    assert list(loaded.broken.values()) == [
        rf"{root}/ab\xe9ille/\xff.png is not an image in a format that can be read"
    ]
    (root / r"ab\xe9ille").mkdir()
    with pytest.raises(DataError, match=r"two class folders that are shown as 'ab.*; rename one"):
        class_names(root)


def test_classes_without_images_are_named_once(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "cat" / "deeper").mkdir(parents=True)
    (root / "cat" / "deeper" / "x.txt").touch()
    skipped = Skipped()
    list_images(root.parent, root, ("ant", "bee", "cat"), skipped)
    assert skipped.describe(root) == (
        f"skipped in {root}: 1 class folder without images (images/cat); "
        "1 file of another kind (images/cat/deeper/x.txt)"
    )
