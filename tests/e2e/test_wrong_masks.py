"""Masks, class lists, heads, sizes that do not suit: one clear line, exit code 2, no folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pacavit_cli.main import main

WritePairs = Callable[..., None]
TRAIN = "train masks_nano --out {root}/new --data {root}/data"
NAMED = TRAIN + ' --set data.options.classes=["a","b"]'
ADE = TRAIN + " --set data.name=ade20k"


SPLITS = ("train", "val", "test")
KINDS = ("images", "masks")
ALL = range(20)
Change = Callable[[Path], object]
"""Changes a folder of 20 images whose masks have the values 0, 1 and 2."""


def nothing(root: Path) -> None:
    """A folder without faults."""


def gray(value: int, size: tuple[int, int] = (24, 32)) -> Image.Image:
    return Image.fromarray(np.full(size, value, np.uint8))


COLORED = Image.new("RGB", (32, 24), (1, 2, 3))


def save(image: Image.Image, numbers: Iterable[int] = ALL, kind: str = "masks") -> Change:
    def change(root: Path) -> None:
        for number in numbers:
            image.save(root / kind / f"{number}.png")

    return change


def write(text: str, name: str = "classes.txt") -> Change:
    return lambda root: (root / name).write_text(text)


def remove(kind: str, numbers: Iterable[int]) -> Change:
    def change(root: Path) -> None:
        for number in numbers:
            (root / kind / f"{number}.png").unlink()

    return change


def both(*changes: Change) -> Change:
    return lambda root: [change(root) for change in changes]


def turned(root: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (32, 24)).save(root / "images" / "0.png", exif=exif)


def lossy(root: Path) -> None:
    for number in ALL:
        (root / "masks" / f"{number}.png").unlink()
        gray(1).save(root / "masks" / f"{number}.jpg")


def renamed(root: Path) -> None:
    for file in (root / "masks").iterdir():
        file.rename(file.with_name(f"x{file.name}"))


def broken(root: Path) -> None:
    for file in (root / "masks").iterdir():
        file.write_text("not an image")


def by_split(*keep: str) -> Change:
    """Move the pairs into folders of splits, and keep only some of these."""

    def change(root: Path) -> None:
        for kind in KINDS:
            files = sorted((root / kind).iterdir())
            for number, split in enumerate(SPLITS):
                (root / kind / split).mkdir()
                for file in files[number::3]:
                    file.rename(root / kind / split / file.name)
                if f"{kind}/{split}" not in keep:
                    shutil.rmtree(root / kind / split)

    return change


ALL_SPLITS = by_split(*(f"{kind}/{split}" for kind in KINDS for split in SPLITS))


def as_ade20k(text: str) -> Change:
    def change(root: Path) -> None:
        ALL_SPLITS(root)
        (root / "masks").rename(root / "annotations")
        (root / "objectInfo.txt").write_text(text)

    return change


ROWS: list[tuple[str, str, Change, list[str]]] = [
    # what is wrong, the words, the change, what the line must name
    ("no folder named", TRAIN.split(" --data")[0], nothing, ["--data ROOT", "masks/"]),
    ("no such folder", TRAIN + "_old", nothing, ["no data folder", "data_old"]),
    (
        "no masks folder",
        TRAIN,
        lambda root: (root / "masks").rename(root / "other"),
        ["no folder of masks", "images/ and masks/"],
    ),
    (
        "empty masks folder",
        TRAIN,
        remove("masks", ALL),
        ["no images in", "masks"],
    ),
    (
        "two folders of masks",
        TRAIN,
        lambda root: (root / "labels").mkdir(),
        ["labels and masks", "keep one"],
    ),
    (
        "another size",
        NAMED,
        save(gray(1, (9, 9))),
        ["masks have another size", "9 x 9 pixels, the image 32 x 24 pixels", "width and height"],
    ),
    (
        "EXIF",
        TRAIN + " --set data.val_size=0 --set data.options.test_size=0",
        turned,
        ["1 mask fits its image only without", "EXIF", "masks/0.png"],
    ),
    (
        "value beyond",
        TRAIN,
        write("sky\nroad\n"),
        ["of no class", ": 2", "data.options.ignore"],
    ),
    (
        "mask without image",
        TRAIN,
        remove("images", [3]),
        ["1 mask has no image (masks/3.png)", "unpaired=skip"],
    ),
    (
        "image without mask",
        TRAIN,
        remove("masks", [3, 4]),
        ["2 images have no mask (images/3.png; images/4.png)"],
    ),
    (
        "other names",
        TRAIN,
        renamed,
        ["none of the 20 images", "different names"],
    ),
    (
        "two masks",
        TRAIN,
        lambda root: gray(1).save(root / "masks" / "3_mask.png"),
        ["masks/3.png and masks/3_mask.png are for one image"],
    ),
    (
        "colors without list",
        TRAIN,
        save(COLORED, [0]),
        ["1 mask is in color", "classes.txt", "NAME R G B"],
    ),
    (
        "unknown color",
        TRAIN,
        both(write("sky 255 0 0\nroad 0 0 255\n"), save(COLORED)),
        ["of no class", "#010203"],
    ),
    (
        "colors for a list of values",
        TRAIN,
        both(write("sky\nroad\n"), save(COLORED)),
        ["masks are in color, and the classes have no colors"],
    ),
    ("lossy", NAMED, lossy, ["JPEG", "as PNG"]),
    (
        "name twice",
        TRAIN,
        write("sky\nroad\nsky\n"),
        ["classes.txt", "name 'sky' more than once"],
    ),
    (
        "value twice",
        TRAIN,
        write("1 sky\n1 road\n"),
        ["value 1 more than once (sky; road)"],
    ),
    (
        "color twice",
        TRAIN,
        write("sky 1 2 3\nroad 1 2 3\n"),
        ["color #010203 more than once"],
    ),
    (
        "line not understood",
        TRAIN,
        write("sky\n12\n"),
        ["classes.txt, line 2", "'12'"],
    ),
    ("list not JSON", TRAIN, write("{", "classes.json"), ["is not JSON"]),
    (
        "list not text",
        TRAIN,
        lambda root: (root / "classes.txt").write_bytes(b"\xff\xfe\xff"),
        ["classes.txt", "UTF-8"],
    ),
    (
        "two lists",
        TRAIN,
        both(write("sky\nroad\n"), write("{}", "palette.json")),
        ["2 lists of classes", "keep one"],
    ),
    (
        "256 classes",
        TRAIN,
        write(json.dumps([str(n) for n in range(256)]), "classes.json"),
        ["256 classes", "255"],
    ),
    (
        "256 values",
        TRAIN,
        save(Image.fromarray(np.arange(24 * 32, dtype=np.uint16).reshape(24, 32)), [0]),
        ["767 different values", "classes.txt"],
    ),
    ("one class", TRAIN, save(gray(1)), ["has 1 class", "class 1"]),
    (
        "0 and 255",
        TRAIN,
        both(save(gray(0)), save(gray(255), range(10))),
        ["values 0 and 255 only", "VALUE NAME"],
    ),
    (
        "0 and 255 with names",
        TRAIN,
        both(write("sky\nroad\n"), save(gray(0)), save(gray(255), range(10))),
        ["show only the class 'sky'", "unlabeled", "255, as VALUE NAME"],
    ),
    (
        "nothing labeled",
        TRAIN,
        both(write("sky\nroad\n"), save(gray(255))),
        ["has a pixel of a class", "data.options.ignore"],
    ),
    (
        "small images",
        TRAIN + " --set data.options.min_side=25",
        nothing,
        ["images are too small", "32 x 24 pixels, 25 a side are the least"],
    ),
    ("broken masks", NAMED, broken, ["no usable"]),
    (
        "no validation",
        TRAIN + " --set data.val_size=0",
        nothing,
        ["no val images with masks"],
    ),
    (
        "val_size of a folder",
        TRAIN + " --set data.val_size=2",
        ALL_SPLITS,
        ["val_size has no effect"],
    ),
    (
        "no masks of a split",
        TRAIN,
        by_split("images/train", "images/val", "masks/train"),
        ["no folder of val masks"],
    ),
    (
        "nothing to train on",
        TRAIN,
        by_split("images/test", "masks/test"),
        ["no train images with masks"],
    ),
    (
        "unknown ignored class",
        TRAIN + ' --set data.options.ignore=["viod"]',
        write("void\nsky\nroad\n"),
        ["unknown class 'viod' in data.options.ignore", "'void'"],
    ),
    (
        "copies in two splits",
        TRAIN,
        save(COLORED, kind="images"),
        ["images are in two splits"],
    ),
    ("ADE20K's layout", ADE, nothing, ["no folder annotations", "validation/"]),
    (
        "ADE20K's value",
        ADE,
        as_ade20k("Idx\tName\n1\tsky\n3\troad\n"),
        ["of no class", ": 2"],
    ),
    (
        "ADE20K's zero",
        ADE,
        as_ade20k("Idx\tName\n0\tsky\n1\troad\n"),
        ["value 0", "data.name=masks"],
    ),
    (
        "a data set of labels",
        TRAIN + " --set data.name=folder",
        nothing,
        ["'folder' has no targets for the task 'segmentation'"],
    ),
    (
        "text as an option of a head",
        TRAIN + " --set task.head_options.channels=many",
        nothing,
        ["task.head_options.channels = 'many': expected a valid integer"],
    ),
    (
        "fraction as an option of a head",
        TRAIN + " --set task.head_options.channels=1.5",
        nothing,
        ["task.head_options.channels = 1.5: expected a valid integer"],
    ),
    (
        "number instead of a list",
        TRAIN + " --set task.head=upernet --set task.head_options.pool_sizes=3",
        nothing,
        ["task.head_options.pool_sizes = 3: expected a valid array"],
    ),
    (
        "text for yes or no",
        TRAIN + " --set task.head=upernet --set task.head_options.auxiliary=no",
        nothing,
        ["task.head_options.auxiliary = 'no': expected a valid boolean"],
    ),
    (
        "no such map",
        TRAIN + " --set task.stages=[7]",
        nothing,
        ["task.stages [7]", "0 (stride 4), 1 (stride 8), 2 (stride 16)"],
    ),
    (
        "windows below a cell",
        TRAIN + " --set task.slide={{window=[16,4],stride=[4,4]}}",
        nothing,
        ["task.slide.window has 16 x 4 pixels", "16 x 16", "crops"],
    ),
    (
        "image_size of one pixel",
        TRAIN + " --set task.image_size=1",
        nothing,
        ["images are resized to 1 x 1 pixels at least", "raise task.image_size"],
    ),
    (
        "longest_side of one pixel",
        TRAIN + " --set task.image_size=16 --set task.longest_side=1",
        nothing,
        ["too small", "task.longest_side"],
    ),
]


@pytest.mark.parametrize(
    ("command", "change", "words"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_one_line_and_exit_code_2(
    command: str,
    change: Change,
    words: list[str],
    tmp_path: Path,
    write_pairs: WritePairs,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_pairs(tmp_path / "data" / "images", tmp_path / "data" / "masks", 20)
    change(tmp_path / "data")
    assert main([word.format(root=tmp_path) for word in command.split()]) == 2
    error = capsys.readouterr().err
    (line,) = error.strip().splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words), line
    assert not (tmp_path / "new").exists()
