"""Which files of folders are images, for training and for prediction alike."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from pacavit.data.formats.files import list_images
from pacavit.data.formats.walk import Skipped, expand_folders, is_system, walk_folders
from pacavit.errors import DataError

SYSTEM_NAMES = (
    ".ipynb_checkpoints",
    ".DS_Store",
    "._x.jpg",
    ".hidden.png",
    "@eaDir",
    "#recycle",
    "$RECYCLE.BIN",
    "__MACOSX",
    "Thumbs.db",
    "desktop.ini",
    "System Volume Information",
    "lost+found",
    "FOUND.000",
    "x.jpg@SynoEAStream",
)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def walk(root: Path, folders: Sequence[str] = (".",)) -> tuple[dict[str, list[str]], Skipped]:
    """The images of each folder, and what was skipped."""
    skipped = Skipped()
    found: dict[str, list[str]] = {name: [] for name in folders}
    for position, path in walk_folders(root, [root / name for name in folders], skipped):
        found[folders[position]].append(path)
    return {name: sorted(paths) for name, paths in found.items()}, skipped


@pytest.mark.parametrize("name", SYSTEM_NAMES)
def test_hidden_and_system_entries_are_no_data(name: str, tmp_path: Path) -> None:
    """At any depth, as files and as folders; the walks of training and prediction agree."""
    assert is_system(name)
    touch(tmp_path, "cat/1.jpg", "cat/a/b/2.jpg", "dog/3.jpg")
    before = expand_folders([tmp_path])[0]
    assert [path.name for path in before] == ["1.jpg", "2.jpg", "3.jpg"]
    touch(tmp_path, f"{name}/0.jpg", f"cat/{name}/1.jpg", f"cat/a/b/{name}/2.jpg")
    found, skipped = expand_folders([tmp_path])
    assert found == before
    assert skipped.counts == {"hidden": 3}
    listing = list_images(tmp_path, tmp_path, ("cat", "dog"))
    assert [os.fsencode(path.relative_to(tmp_path)) for path in found] == listing.files.tolist()


@pytest.mark.parametrize("name", ["cat", "_cat", "__background__", "train", "#1", "@home", "~"])
def test_other_names_are_data(name: str, tmp_path: Path) -> None:
    assert not is_system(name)
    touch(tmp_path, f"{name}/1.jpg", "other/2.jpg")
    assert len(list_images(tmp_path, tmp_path, sorted({name, "other"}))) == 2


def test_links_are_followed_and_no_folder_is_read_twice(tmp_path: Path) -> None:
    touch(tmp_path, *(f"data/cat/{number}.jpg" for number in range(10)), "data/dog/1.jpg")
    touch(tmp_path, "elsewhere/more/1.jpg", "elsewhere/more/below/2.jpg")
    links = {
        "data/cat/a_link": "../../elsewhere",
        "data/cat/b_same": "../../elsewhere/more",
        "data/cat/loop": ".",
        "data/cat/parent": "..",
        "data/cat/root": "/",
        "data/cat/sibling": "../dog",
        "data/cat/itself": "itself",
    }
    for name, target in links.items():
        (tmp_path / name).symlink_to(target, target_is_directory=True)
    (tmp_path / "data/dog/2.jpg").symlink_to("1.jpg")
    found, skipped = walk(tmp_path / "data", ["cat", "dog"])
    own = [f"cat/{number}.jpg" for number in range(10)]
    linked = ["cat/a_link/more/1.jpg", "cat/a_link/more/below/2.jpg"]
    assert found == {"cat": own + linked, "dog": ["dog/1.jpg", "dog/2.jpg"]}
    assert skipped.counts == {"repeated": 5, "other": 1}
    assert expand_folders([tmp_path / "data" / "cat"])[0] == [
        tmp_path / "data" / name
        for name in [*own, *linked, "cat/sibling/1.jpg", "cat/sibling/2.jpg"]
    ]


def test_links_change_no_paths_of_other_images(tmp_path: Path) -> None:
    """Which images are held out follows from their paths."""
    touch(tmp_path, "cat/z/1.jpg", "dog/1.jpg")
    before, _ = walk(tmp_path, ["cat", "dog"])
    (tmp_path / "cat" / "a").symlink_to("z")
    (tmp_path / "ant").symlink_to("dog")
    found, skipped = walk(tmp_path, ["ant", "cat", "dog"])
    assert found == {"ant": [], **before}
    assert skipped.examples == {"repeated": ["ant", "cat/a"]}


def test_a_class_folder_that_is_a_link_comes_before_links_inside_of_others(tmp_path: Path) -> None:
    touch(tmp_path, "data/cat/1.jpg", "store/dog/2.jpg")
    (tmp_path / "data" / "cat" / "a").symlink_to(tmp_path / "store" / "dog")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "store" / "dog")
    found, _ = walk(tmp_path / "data", ["cat", "dog"])
    assert found == {"cat": ["cat/1.jpg"], "dog": ["dog/2.jpg"]}


def test_folders_that_are_given_are_read_whatever_their_names(tmp_path: Path) -> None:
    touch(tmp_path, ".cache/@eaDir/1.jpg", ".cache/2.jpg", "._3.jpg")
    assert expand_folders([tmp_path / ".cache"])[0] == [tmp_path / ".cache" / "2.jpg"]
    assert expand_folders([tmp_path / ".cache" / "@eaDir", tmp_path / "._3.jpg"])[0] == [
        tmp_path / ".cache" / "@eaDir" / "1.jpg",
        tmp_path / "._3.jpg",
    ]
    (tmp_path / "link").symlink_to(".cache")
    assert expand_folders([tmp_path / "link"])[0] == [tmp_path / "link" / "2.jpg"]


def test_files_are_kept_and_folders_are_sorted_by_bytes(tmp_path: Path) -> None:
    names = ["B.png", "a.png", "a/1.png", "a-b/1.jfif", "é.png", os.fsdecode(b"\xe9.png")]
    touch(tmp_path / "folder", *names, "notes.txt")
    single = tmp_path / "anything.dat"
    found, skipped = expand_folders([single, tmp_path / "folder"])
    ordered = ["B.png", "a-b/1.jfif", "a.png", "a/1.png", "é.png", os.fsdecode(b"\xe9.png")]
    assert found == [single, *(tmp_path / "folder" / name for name in ordered)]
    assert skipped.describe() == "skipped: 1 file of another kind (notes.txt)"


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images in folder .*and so on$"):
        expand_folders([tmp_path])
    touch(tmp_path, "film.mp4", ".x/1.jpg")
    with pytest.raises(DataError, match=r"no images .*1 file of another kind \(film\.mp4\); 1 hid"):
        expand_folders([tmp_path])


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_folder_that_may_not_be_read_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "cat/a/1.jpg")
    (tmp_path / "cat" / "a").chmod(0)
    with pytest.raises(DataError, match=r"cannot read the folder .*cat/a: Permission denied"):
        expand_folders([tmp_path])


def test_what_is_skipped_is_one_line(tmp_path: Path) -> None:
    skipped = Skipped()
    assert skipped.describe() is None
    touch(tmp_path, *(f"{number}.mp4" for number in range(1200)), "a.txt", "b", "c.txt")
    touch(tmp_path, os.fsdecode(b"new\nline \xe9.pdf"))
    list(walk_folders(tmp_path, [tmp_path], skipped))
    assert skipped.describe() == (
        "skipped: 1,204 files of other kinds [1,200 .mp4, 2 .txt, 1 no suffix, ...] "
        "(0.mp4, 1.mp4, 10.mp4, ...)"
    )
    other = Skipped()
    other.add("loose", os.fsdecode(b"new\nline \xe9.png"))
    skipped.update(other)
    line = skipped.describe(Path("root"))
    assert line is not None
    assert line.startswith(
        r"skipped in root: 1 image outside of the class folders (new\nline \xe9.png); 1,204 files"
    )
