"""Images in parquet and tar shards: the same images as in a folder, and what can be wrong."""

import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pacavit.data import DATASETS, SPLITS, ImageSet, Loader, Parquet, Split, WebDataset
from pacavit.data.duplicates import find_duplicates
from pacavit.data.formats.shards import ShardImages
from pacavit.data.formats.tar_shards import INDEX, _scan
from pacavit.errors import DataError

MakeLoader = Callable[..., Loader]
Row = tuple[bytes, Any]


def png(seed: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (10, 8 + seed % 5, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


NAMES = ("ant", "bee", "cat")
ROWS: list[Row] = [(png(seed), seed % 3) for seed in range(24)]


def write_parquet(
    file: Path, rows: Sequence[Row], names: Sequence[str] | None = None, label: str = "label"
) -> None:
    """A shard with row groups of 3 rows, as the hub writes it."""
    images = [None if data is None else {"bytes": data, "path": "x.png"} for data, _ in rows]
    table = pa.table({"image": images, label: [value for _, value in rows]})
    if names is not None:
        features = {"image": {"_type": "Image"}, label: {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=3)


def write_tar(file: Path, members: Mapping[str, bytes]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def samples(rows: Sequence[Row], start: int = 0, kind: str = "cls") -> dict[str, bytes]:
    members = {}
    for number, (data, label) in enumerate(rows, start):
        members[f"n{label}/{number:04}.png"] = data
        text = str(label) if kind == "cls" else json.dumps({"label": label, "filename": "x"})
        members[f"n{label}/{number:04}.{kind}"] = text.encode()
    return members


@pytest.fixture
def parquet_root(tmp_path: Path) -> Path:
    """Train shards of 10 and 6 images, and 8 for validation."""
    root = tmp_path / "hub"
    for number, part in enumerate((ROWS[:10], ROWS[10:16])):
        write_parquet(root / f"data/train-0000{number}-of-00002.parquet", part, NAMES)
    write_parquet(root / "data/validation-00000-of-00001.parquet", ROWS[16:], NAMES)
    return root


@pytest.fixture
def tar_root(tmp_path: Path) -> Path:
    """The same images in tar files."""
    root = tmp_path / "tars"
    write_tar(root / "set-train-0000.tar", samples(ROWS[:10]))
    write_tar(root / "set-train-0001.tar", samples(ROWS[10:16], 10, "json"))
    write_tar(root / "set-validation-0000.tar", {"README": b"text"} | samples(ROWS[16:], 16))
    (root / "classes.txt").write_text("ant\nbee\ncat\n")
    return root


@pytest.fixture(params=["parquet", "webdataset"])
def source(request: pytest.FixtureRequest, parquet_root: Path, tar_root: Path) -> Any:
    """A function that makes the source with options."""
    kind = DATASETS.get(request.param)
    root = parquet_root if request.param == "parquet" else tar_root
    return lambda **options: kind(root, **options)


def encoded(images: ShardImages) -> list[bytes]:
    return [images.encoded(index) for index in range(len(images))]


def test_splits_are_those_of_the_shards(source: Any) -> None:
    data = source(image_size=16)
    train, val = data.load("train"), data.load("val")
    assert encoded(train) + encoded(val) == [image for image, _ in ROWS]
    assert train.labels.tolist() + val.labels.tolist() == [label for _, label in ROWS]
    assert data.info.class_names == ("ant", "bee", "cat")
    assert data.info.version.startswith("24 images in 3 shards, 3 classes (")
    assert data.note is None
    with pytest.raises(DataError, match="has no test images: no shard has that split"):
        data.load("test")
    with Image.open(io.BytesIO(ROWS[17][0])) as opened:
        expected = torch.from_numpy(np.array(opened)).permute(2, 0, 1)
    sample = val[1]
    assert torch.equal(sample.image, expected)
    assert (int(sample.target), sample.index) == (17 % 3, 1)
    images, labels = val.batch(torch.tensor([3, 0]))
    assert images.shape == (2, 3, 16, 16)
    assert labels.tolist() == [19 % 3, 16 % 3]
    assert len(data.load_all()) == 24


def test_validation_images_can_be_the_test_split(source: Any) -> None:
    """ImageNet's test images have no labels: scores are reported on its validation images."""
    data = source(val_as_test=True, val_size=6)
    assert encoded(data.load("test")) == [image for image, _ in ROWS[16:]]
    train, val = data.load("train"), data.load("val")
    assert len(val) == 6
    assert sorted(encoded(train) + encoded(val)) == sorted(image for image, _ in ROWS[:16])
    assert encoded(source(val_as_test=True, val_size=6).load("val")) == encoded(val)
    evaluated = source(val_as_test=True, evaluated="test", classes=("x", "cat", "bee", "ant"))
    assert evaluated.load("test").labels.tolist() == [3 - label for _, label in ROWS[16:]]
    with pytest.raises(DataError, match="classes that the training images do not have: 'cat'"):
        source(classes=("ant", "bee"))


def test_batches_are_the_same_for_any_number_of_workers(
    source: Any, make_loader: MakeLoader
) -> None:
    def batches(num_workers: int, start: int = 0) -> list[Any]:
        loader = make_loader(
            source(image_size=8).load("train"),
            4,
            lambda images, random: images.float(),
            shuffle=True,
            drop_last=True,
            seed=1,
            num_workers=num_workers,
        )
        return list(loader.epoch(2, start))

    expected = batches(0)
    assert len(expected) == 4
    for other in (batches(2), expected[:1] + batches(2, 1)):
        for one, same in zip(expected, other, strict=True):
            assert torch.equal(one.images, same.images)
            assert torch.equal(one.targets, same.targets)


def test_exact_copies_are_found(source: Any) -> None:
    data = source(val_size=None)
    data.load("val").rows[2] = data.load("train").rows[5]
    splits: dict[Split, ImageSet] = {split: data.load(split) for split in SPLITS[:2]}
    [found] = [each for each in find_duplicates(splits, splits) if each.exact]
    assert (found.split, found.other_split) == ("val", "train")
    assert found.other_image == splits["train"].location(5)


def test_a_pattern_a_shard_and_unnamed_shards(parquet_root: Path, tar_root: Path) -> None:
    assert len(Parquet(parquet_root / "data" / "train-*.parquet").load_all()) == 16
    alone = Parquet(parquet_root / "data" / "validation-00000-of-00001.parquet")
    assert len(alone.load("val")) == 8
    for number, path in enumerate(sorted(tar_root.glob("*.tar"))):
        path.rename(tar_root / f"{number}.tar")
    data = WebDataset(tar_root, val_size=5, test_size=4)
    assert [len(data.load(split)) for split in ("train", "val", "test")] == [15, 5, 4]


def test_names_of_classes(tmp_path: Path) -> None:
    """From the hub's metadata, from texts, from a file, or else their numbers."""
    write_parquet(tmp_path / "a/train-0.parquet", [(png(n), "xyz"[n % 3]) for n in range(9)])
    assert Parquet(tmp_path / "a", val_size=3).info.class_names == ("x", "y", "z")
    write_parquet(tmp_path / "b/train-0.parquet", ROWS, label="fine")
    data = Parquet(tmp_path / "b", label="fine", val_size=3)
    assert data.info.class_names == ("0", "1", "2")
    (tmp_path / "names").write_text("p\nq\nr\ns\n")
    named = Parquet(tmp_path / "b", label="fine", names=tmp_path / "names", val_size=3)
    assert named.info.class_names == ("p", "q", "r", "s")


def test_splits_without_labels_are_left_out(parquet_root: Path) -> None:
    rows = [(png(n), -1) for n in range(4)]
    write_parquet(parquet_root / "data/test-0.parquet", rows, NAMES)
    data = Parquet(parquet_root)
    assert data.note == "the 4 test images have no labels and are not used"
    assert data.files("test") is None


def test_the_index_is_stored_and_made_anew_for_other_shards(
    tar_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scanned: list[str] = []

    def counting(file: Path) -> Any:
        scanned.append(file.name)
        return _scan(file)

    monkeypatch.setattr("pacavit.data.formats.tar_shards._scan", counting)
    monkeypatch.setattr("pacavit.data.formats.tar_shards.available_cores", lambda: 0)
    first = encoded(WebDataset(tar_root).load_all())
    assert (tar_root / INDEX).exists()
    assert len(scanned) == 3
    assert encoded(WebDataset(tar_root).load_all()) == first
    assert len(scanned) == 3
    write_tar(tar_root / "set-train-0001.tar", samples(ROWS[:2], 10))
    assert len(WebDataset(tar_root).load_all()) == 20
    (tar_root / INDEX).write_bytes(b"PK of another program")
    assert len(WebDataset(tar_root).load_all()) == 20
    assert len(scanned) == 9


def test_a_folder_that_cannot_be_written_has_no_stored_index(
    tar_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pacavit.data.formats.tar_shards.replace_file", refuse)
    data = WebDataset(tar_root)
    assert data.note is not None
    assert data.note.endswith("is made anew in each run: Permission denied")
    assert encoded(data.load("val")) == [image for image, _ in ROWS[16:]]


def test_lists_of_shards_are_compared(tar_root: Path) -> None:
    listed = [
        {"url": "https://example.org/set-train-0000.tar", "nsamples": 10},
        {"url": "set-train-0001.tar", "nsamples": 6},
    ]
    content = {"__kind__": "wids-shard-index-v1", "wids_version": 1, "shardlist": listed}
    (tar_root / "train.json").write_text(json.dumps(content))
    (tar_root / "other.json").write_text("[]")
    WebDataset(tar_root)
    listed[1]["nsamples"] = 7
    (tar_root / "train.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"0001\.tar has 6 samples, and .*train\.json lists 7"):
        WebDataset(tar_root)
    listed[1]["url"] = "set-train-0009.tar"
    (tar_root / "train.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"lists set-train-0009\.tar, which is missing"):
        WebDataset(tar_root)


def test_broken_images_are_named_by_shard_and_row(
    parquet_root: Path, tar_root: Path, make_loader: MakeLoader
) -> None:
    rows: list[Any] = [*ROWS[:3], (b"no image", 1), (None, 2), (b"", 0)]
    write_parquet(parquet_root / "data/train-00001-of-00002.parquet", rows, NAMES)
    broken = samples([(b"no image", 1)], 77)
    write_tar(tar_root / "set-train-0001.tar", samples(ROWS[:5], 10) | broken)
    for data, messages in (
        (
            Parquet(parquet_root),
            ["row 3 is not an image", "row 4 has no embedded image", "row 5 is not an image"],
        ),
        (WebDataset(tar_root), ["set-train-0001.tar: n1/0077 is not an image"]),
    ):
        images = data.load("train")
        loader = make_loader(
            images, 5, lambda images, random: images.float(), shuffle=False, drop_last=False, seed=0
        )
        assert sum(map(len, loader.epoch(0))) == len(images) - len(messages)
        assert len(images.broken) == len(messages)
        for found, part in zip(images.broken.values(), messages, strict=True):
            assert part in found


def test_a_shard_that_shrinks_is_reported(tar_root: Path) -> None:
    images = WebDataset(tar_root).load("val")
    os.truncate(tar_root / "set-validation-0000.tar", 5_000)
    with pytest.raises(DataError, match="the shard ends before the image does"):
        encoded(images)


def parquet_fault(kind: str, root: Path) -> Any:
    file = root / "data/train-00001-of-00002.parquet"
    names = NAMES
    if kind == "missing shard":
        file.unlink()
    elif kind == "truncated":
        os.truncate(file, 100)
    elif kind == "columns":
        pq.write_table(pa.table({"text": ["a"]}), file)
    elif kind == "no label":
        write_parquet(file, [(png(0), 0), (png(1), None)], names)
    elif kind == "label":
        write_parquet(file, [(png(0), 0), (png(1), 3)], names)
    elif kind == "one name":
        return lambda: Parquet(root, label="other")
    elif kind == "image column":
        for each in (root / "data").iterdir():
            pq.write_table(pa.table({"pixels": [b"x"], "label": [0]}), each)
    elif kind == "mixed":
        write_parquet(root / "data/more.parquet", ROWS, names)
    elif kind == "names":
        (root / "data/classes.txt").write_text("a\na\n")
    elif kind == "size":
        return lambda: Parquet(root, val_size=3)
    elif kind == "no such names":
        return lambda: Parquet(root, names=root / "nothing.txt")
    return lambda: Parquet(root)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing shard", r"holds 1 of 2 train files \*\.parquet; add the missing ones"),
        ("truncated", r"train-00001-of-00002\.parquet is not a readable parquet file"),
        ("columns", "has other columns than"),
        ("no label", r"train-00001-of-00002\.parquet: row 1 has label -1, outside of 0\.\.2"),
        ("label", r"train-00001-of-00002\.parquet: row 1 has label 3, outside of 0\.\.2"),
        ("one name", r"no column of labels 'other' \(data\.options\.label\); it has image, label"),
        ("image column", "has no column of images, image or img; it has pixels, label"),
        ("mixed", r"more\.parquet has no split in its name, and other shards have"),
        ("names", "names a class twice: a"),
        ("size", "val_size has no effect"),
        ("no such names", "cannot read .*nothing.txt"),
    ],
)
def test_wrong_parquet_files(parquet_root: Path, kind: str, message: str) -> None:
    make = parquet_fault(kind, parquet_root)
    with pytest.raises(DataError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.png": png(0), "a.cls": b"cat"}, r"a\.cls holds 'cat', not the number of a class"),
        ({"a.png": png(0), "a.cls": b"0", "b.png": png(1)}, "b has no label, a file .cls"),
        ({"a.cls": b"0"}, "a has a label and no image"),
        ({"a.png": png(0), "a.json": b"{"}, r"a\.json is not JSON"),
        ({"a.png": png(0), "a.cls": b"5"}, r"0001\.tar: a has label 5, outside of 0\.\.2"),
        ({"a.png": png(0), "a.txt": b"cat"}, "0001.tar: a has label -1"),
    ],
)
def test_wrong_tar_files(tar_root: Path, members: dict[str, bytes], message: str) -> None:
    write_tar(tar_root / "set-train-0001.tar", members)
    with pytest.raises(DataError, match=message):
        WebDataset(tar_root)


def test_other_wrong_tar_files(tar_root: Path) -> None:
    file = tar_root / "set-train-0001.tar"
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(DataError, match=r"0001\.tar has no end, so it was cut off"):
        WebDataset(tar_root)
    file.write_bytes(b"text" * 500 + bytes(1024))
    with pytest.raises(DataError, match=r"0001\.tar is not a readable tar file"):
        WebDataset(tar_root)
    with tarfile.open(file, "w:gz") as tar:
        tar.add(tar_root / "classes.txt")
    with pytest.raises(DataError, match="must not be compressed"):
        WebDataset(tar_root)
    for path in tar_root.glob("*.tar"):
        write_tar(path, {"README": b"text"})
    with pytest.raises(DataError, match="has no images in its tar files"):
        WebDataset(tar_root)
    with pytest.raises(DataError, match=r"there are no files \*\.tar in"):
        WebDataset(tar_root / "nothing")
    for kind in (Parquet, WebDataset):
        with pytest.raises(DataError, match="name it with --data ROOT"):
            kind()
