import io
import os
import pickle
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pacavit.data import DATASETS, Cifar10
from pacavit.data.sources import cifar10
from pacavit.errors import DataError

TRAIN, TEST = 50, 10
PIXELS = np.random.default_rng(0).integers(0, 256, (TRAIN + TEST, 3, 32, 32), np.uint8)
LABELS = (np.arange(TRAIN + TEST) * 7 % 10).tolist()
PARTIAL = " with 50 instead of 50,000 train images and 10 instead of 10,000 test images"
ARCHIVE = "cifar-10-python.tar.gz"


class Attack:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.trace}",)


def encode(pixels: np.ndarray, kind: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(stream, kind)
    return stream.getvalue()


def png_header(side: int) -> bytes:
    """A PNG image that claims to be large and holds nothing."""
    fields = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(fields))
    end = struct.pack(">I4sI", 0, b"IDAT", zlib.crc32(b"IDAT"))
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + fields + checksum + end


def write_shard(
    path: Path, images: Sequence[bytes | None], labels: Sequence[int], column: str = "img"
) -> None:
    rows = [{"bytes": data, "path": None} for data in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({column: pa.array(rows, kind), "label": labels}), path)


def write_parquet(folder: Path, kind: str = "PNG", column: str = "img", shards: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    images = [encode(pixels, kind) for pixels in PIXELS]
    for number, rows in enumerate(np.array_split(np.arange(TRAIN), shards)):
        name = f"train-{number:05}-of-{shards:05}.parquet"
        part = slice(rows[0], rows[-1] + 1)
        write_shard(folder / name, images[part], LABELS[part], column)
    write_shard(folder / "test-00000-of-00001.parquet", images[TRAIN:], LABELS[TRAIN:], column)
    return folder


def batch(part: slice, **changes: object) -> dict[str, object]:
    return {"data": PIXELS[part].reshape(-1, 3072), "labels": LABELS[part], **changes}


def write_batches(folder: Path) -> Path:
    folder = folder / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for number in range(5):
        part = slice(number * TRAIN // 5, (number + 1) * TRAIN // 5)
        (folder / f"data_batch_{number + 1}").write_bytes(pickle.dumps(batch(part), 2))
    (folder / "test_batch").write_bytes(pickle.dumps(batch(slice(TRAIN, None)), 2))
    return folder


def write_archive(folder: Path, *members: tarfile.TarInfo) -> Path:
    batches = write_batches(folder / "unpacked")
    with tarfile.open(folder / ARCHIVE, "w:gz") as tar:
        for member in members:
            tar.addfile(member)
        tar.add(batches, batches.name)
    shutil.rmtree(batches.parent)
    return folder / ARCHIVE


def check(source: Cifar10, copy: str) -> None:
    assert source.info.version == copy + PARTIAL
    train, val, test = (source.load(split) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (40, 10, 10)
    assert np.array_equal(test.images.numpy(), PIXELS[TRAIN:])
    assert test.labels.tolist() == LABELS[TRAIN:]
    assert torch.bincount(val.labels).tolist() == [1] * 10
    both = torch.cat([train.images, val.images]).flatten(1).unique(dim=0)
    stored = torch.from_numpy(PIXELS[:TRAIN]).flatten(1).unique(dim=0)
    assert torch.equal(both, stored)


def test_it_is_registered() -> None:
    assert DATASETS.get("cifar10") is Cifar10


@pytest.mark.parametrize("subfolder", ["", "plain_text"])
@pytest.mark.parametrize(("column", "shards"), [("img", 1), ("image", 3)])
def test_parquet(tmp_path: Path, subfolder: str, column: str, shards: int) -> None:
    write_parquet(tmp_path / subfolder, column=column, shards=shards)
    check(Cifar10(tmp_path, val_size=10), "CIFAR-10 (PNG parquet)")


def test_jpeg_parquet_says_so(tmp_path: Path) -> None:
    source = Cifar10(write_parquet(tmp_path, "JPEG"), val_size=10)
    assert source.info.version == "CIFAR-10 (JPEG copy)" + PARTIAL
    assert len(source.load("test")) == TEST


@pytest.mark.parametrize("inside", ["", "cifar-10-batches-py"])
def test_official_batches(tmp_path: Path, inside: str) -> None:
    write_batches(tmp_path)
    check(Cifar10(tmp_path / inside, val_size=10), "CIFAR-10")


@pytest.mark.parametrize("inside", ["", ARCHIVE])
def test_official_archive(tmp_path: Path, inside: str) -> None:
    write_archive(tmp_path)
    check(Cifar10(tmp_path / inside, val_size=10), "CIFAR-10")
    assert [path.name for path in tmp_path.iterdir()] == [ARCHIVE]  # nothing was extracted


@pytest.mark.parametrize("write", [write_parquet, write_batches, write_archive])
def test_all_images_or_a_part_of_them(
    tmp_path: Path, write: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path)
    monkeypatch.setattr(cifar10, "_OFFICIAL", {"train": TRAIN, "test": TEST})
    name = Cifar10(root).info.version
    assert name in ("CIFAR-10", "CIFAR-10 (PNG parquet)")
    monkeypatch.setattr(cifar10, "_OFFICIAL", {"train": TRAIN, "test": 9})
    assert Cifar10(root).info.version == name + " with 10 instead of 9 test images"


def test_official_batches_are_read_once(tmp_path: Path) -> None:
    folder = write_batches(tmp_path)
    source = Cifar10(folder, val_size=10)
    facts = source.info
    shutil.rmtree(folder)
    assert source.info == facts
    assert [len(source.load(split)) for split in ("train", "val", "test")] == [40, 10, 10]


def test_counting_does_not_decode(tmp_path: Path) -> None:
    write_parquet(tmp_path)
    write_shard(tmp_path / "train-00000-of-00001.parquet", [b"broken"] * 7, [0] * 7)
    assert "with 7 instead of 50,000 train images" in Cifar10(tmp_path).info.version


def test_all_layouts_hold_out_the_same_images(tmp_path: Path) -> None:
    parquet = Cifar10(write_parquet(tmp_path / "parquet"), val_size=10).load("val")
    batches = Cifar10(write_batches(tmp_path / "batches"), val_size=10).load("val")
    assert torch.equal(parquet.images, batches.images)


def test_no_validation_images(tmp_path: Path) -> None:
    source = Cifar10(write_batches(tmp_path), val_size=0)
    assert len(source.load("train")) == TRAIN
    with pytest.raises(DataError, match="val_size is 0"):
        source.load("val")


def test_more_validation_images_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot hold out 5000 of 50 images"):
        Cifar10(write_batches(tmp_path)).load("train")


def refuse(root: Path, match: str, split: Any = "test") -> None:
    with pytest.raises(DataError, match=match) as caught:
        Cifar10(root, val_size=10).load(split)
    assert "\n" not in str(caught.value)
    assert str(root) in str(caught.value)


def test_roots_that_hold_nothing(tmp_path: Path) -> None:
    refuse(tmp_path, "holds no CIFAR-10; it should hold train-")
    refuse(tmp_path / "nowhere", "there is no data folder")
    (tmp_path / "notes.txt").write_text("hello")
    refuse(tmp_path, "holds no CIFAR-10")
    refuse(tmp_path / "notes.txt", "is a file; give the folder")


def test_missing_shard(tmp_path: Path) -> None:
    write_parquet(tmp_path, shards=3)
    (tmp_path / "train-00001-of-00003.parquet").unlink()
    refuse(tmp_path, r"holds 2 of 3 files train-\*\.parquet")


def test_missing_batch(tmp_path: Path) -> None:
    (write_batches(tmp_path) / "data_batch_3").unlink()
    refuse(tmp_path, "cannot read .*data_batch_3: No such file", "train")


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ({"img": [b"x"], "label": [1]}, "img, label"),
        ({"img": [{"path": "x"}], "label": [1]}, "img, label"),
        ({"img": [{"bytes": b"x"}], "fine_label": [1]}, "img, fine_label"),
        ({"img": [{"bytes": b"x"}], "label": ["cat"]}, "img, label"),
        ({"picture": [{"bytes": b"x"}], "label": [1]}, "picture, label"),
    ],
)
def test_other_columns(tmp_path: Path, table: dict[str, list[Any]], found: str) -> None:
    write_parquet(tmp_path)
    pq.write_table(pa.table(table), tmp_path / "test-00000-of-00001.parquet")
    refuse(tmp_path, f"must have a column img or image .*; it has {found}")


def test_truncated_parquet(tmp_path: Path) -> None:
    path = write_parquet(tmp_path) / "test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    refuse(tmp_path, r"test-00000-of-00001\.parquet is not a readable parquet file")


@pytest.mark.parametrize(
    ("image", "label", "match"),
    [
        (encode(PIXELS[0], "JPEG")[:400], 1, "row 3 holds a broken image"),
        (b"hello", 1, "row 3 holds a broken image"),
        (b"", 1, "row 3 holds a broken image"),
        (None, 1, "row 3 has no embedded image"),
        (encode(PIXELS[0, :, :16], "JPEG"), 1, "row 3 has 16 x 32 pixels, expected 32 x 32"),
        (encode(PIXELS[0], "GIF"), 1, "row 3 holds a broken image"),
        (png_header(10_000), 1, "row 3 has 10000 x 10000 pixels"),
        (png_header(20_000), 1, "row 3 holds a broken image: Image size"),
        (encode(PIXELS[0], "JPEG"), 10, r"row 3 has label 10 outside 0\.\.9"),
        (encode(PIXELS[0], "JPEG"), -1, r"row 3 has label -1 outside 0\.\.9"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, image: bytes | None, label: int, match: str) -> None:
    write_parquet(tmp_path)
    images = [*(encode(pixels, "PNG") for pixels in PIXELS[:3]), image]
    write_shard(tmp_path / "test-00000-of-00001.parquet", images, [0, 1, 2, label])
    refuse(tmp_path, match)


def test_images_that_are_neither_jpeg_nor_png(tmp_path: Path) -> None:
    refuse(write_parquet(tmp_path, "BMP"), "row 0 is neither a JPEG nor a PNG")


def test_parquet_without_rows(tmp_path: Path) -> None:
    write_parquet(tmp_path)
    write_shard(tmp_path / "train-00000-of-00001.parquet", [], pa.array([], pa.int64()))
    refuse(tmp_path, "holds no images", "train")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"labels": None}, "lacks an array 'data' or a list 'labels'"),
        ({"data": [1, 2]}, "lacks an array 'data' or a list 'labels'"),
        ({"labels": [1]}, r"pixels of shape \(10, 3072\) for 1 labels"),
        ({"labels": [1] * 9 + [10]}, r"row 9 has label 10 outside 0\.\.9"),
        ({"labels": ["1"] * 10}, "row 0 has label '1' outside"),
        ({"data": PIXELS[:10]}, "pixels of shape"),
    ],
)
def test_foreign_batches(tmp_path: Path, changes: dict[str, object], match: str) -> None:
    folder = write_batches(tmp_path)
    (folder / "test_batch").write_bytes(pickle.dumps(batch(slice(TRAIN, None), **changes), 2))
    refuse(tmp_path, match)


def test_code_in_a_batch_is_refused_and_nothing_runs(tmp_path: Path) -> None:
    folder, trace = write_batches(tmp_path), tmp_path / "trace"
    evil = pickle.dumps(batch(slice(TRAIN, None), labels=Attack(trace)), 2)
    (folder / "test_batch").write_bytes(evil)
    refuse(tmp_path, "asks for posix.system, .*nothing in it was run")
    assert not trace.exists()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    ("info", "match"),
    [
        (member("../evil"), "points outside"),
        (member("cifar-10-batches-py/../../evil"), "points outside"),
        (member("/tmp/evil"), "points outside"),
        (member("..\\evil"), "points outside"),
        (member("link", tarfile.SYMTYPE, "/etc/passwd"), "is a link or a device"),
        (member("link", tarfile.LNKTYPE, "other"), "is a link or a device"),
        (member("pipe", tarfile.FIFOTYPE), "is a link or a device"),
    ],
)
def test_unsafe_archives(tmp_path: Path, info: tarfile.TarInfo, match: str) -> None:
    write_archive(tmp_path, info)
    refuse(tmp_path, match)


def test_archive_with_a_huge_member(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(tmp_path)
    monkeypatch.setattr(cifar10, "_MAX_BATCH_BYTES", 1000)
    refuse(tmp_path, r"data_batch_1 is no batch of CIFAR-10: it has .* bytes")


def test_a_huge_batch_is_not_even_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_batches(tmp_path)
    monkeypatch.setattr(cifar10, "_MAX_BATCH_BYTES", 1000)
    monkeypatch.setattr(Path, "read_bytes", pytest.fail)
    refuse(tmp_path, r"test_batch is no batch of CIFAR-10: it has .* bytes")


def test_broken_archives(tmp_path: Path) -> None:
    path = write_archive(tmp_path)
    whole = path.read_bytes()
    for broken in (whole[: len(whole) // 2], b"hello", b""):
        path.write_bytes(broken)
        refuse(tmp_path, "not a readable tar.gz|lacks")
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(member("something"))
    refuse(tmp_path, "lacks cifar-10-batches-py/test_batch")


def test_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(url: str, root: str, filename: str, md5: str) -> None:
        assert url.endswith(filename)
        assert md5 == "c58f30108f718f92721af3b95e74349a"
        write_archive(Path(root))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cifar10, "download_url", download)
    check(Cifar10(val_size=10), "CIFAR-10")
    assert sorted(path.name for path in tmp_path.rglob("*")) == [ARCHIVE, "cifar10", "pacavit"]

    monkeypatch.setattr(cifar10, "download_url", pytest.fail)
    check(Cifar10(val_size=10), "CIFAR-10")


def test_a_download_with_the_wrong_checksum_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_archive(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("torchvision.datasets.utils._get_redirect_url", lambda url, max_hops: url)
    monkeypatch.setattr(
        "torchvision.datasets.utils._urlretrieve",
        lambda url, target: shutil.copy(tmp_path / ARCHIVE, target),
    )
    with pytest.raises(DataError, match=r"could not be downloaded .*corrupted.*--data"):
        Cifar10().load("test")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cifar10, "download_url", download)
    with pytest.raises(DataError, match=r"no route to host\); put .* with --data") as caught:
        Cifar10().load("test")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "pacavit" / "cifar10") in str(caught.value)


@pytest.mark.realdata
def test_real_images(shared_dir: Path) -> None:
    source = Cifar10(shared_dir / "data" / "cifar10-jpeg")
    assert source.info.version == "CIFAR-10 (JPEG copy)"
    sizes = {"train": 45_000, "val": 5000, "test": 10_000}
    for split in ("train", "val", "test"):
        images = source.load(split)
        assert images.images.shape == (sizes[split], 3, 32, 32)
        assert torch.bincount(images.labels).tolist() == [sizes[split] // 10] * 10
    assert images.labels[:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]  # the canonical order
    sample = source.load("train").images[::9].double() / 255
    assert sample.mean((0, 2, 3)).tolist() == pytest.approx(source.info.mean, abs=0.01)
    assert sample.std((0, 2, 3)).tolist() == pytest.approx(source.info.std, abs=0.01)
