"""Predictions of many images into a file: resumed, in shards, from lists and parquet files."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pacavit import api
from pacavit.api import PredictionFile
from pacavit.engine.batch_prediction import Shard, launched_device, parse_shard
from pacavit.engine.inputs import find_inputs
from pacavit.engine.predictor import Predictor
from pacavit.errors import DataError, Interrupted, PacavitError
from pacavit.report.prediction_table import TableWriter
from pacavit.tasks.classification import ClassProbability, ImagePrediction

MODEL, NUM, BROKEN = "cifar10_nano_conv", 26, 7


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise images 00.png to 25.png, of which 07.png is broken, and lists of them."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(NUM):
        pixels = rng.integers(0, 256, (12, 10, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    (folder / f"{BROKEN:02}.png").write_bytes(b"no image")
    names = [f"{number:02}.png" for number in range(NUM)]
    (folder / "list.txt").write_text("\n".join(names) + "\n")
    data = [(folder / name).read_bytes() for name in names]
    structs = [{"bytes": each, "path": name} for each, name in zip(data, names, strict=True)]
    for name, column in (
        ("hub", {"image": structs}),
        ("bytes", {"img": data}),
        ("paths", {"label": [0] * NUM, "file": names}),
        ("image_paths", {"image": names}),
    ):
        pq.write_table(pa.table(column), folder / f"{name}.parquet", row_group_size=5)
    return folder


def run(source: Path, out: Path, **options: Any) -> PredictionFile:
    settings: dict[str, Any] = {"batch_size": 4, "device": "cpu", "num_workers": 0}
    return api.predict_to_file(MODEL, source, out, **settings | options)


def table(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_all_kinds_of_inputs_have_the_same_rows(images: Path, tmp_path: Path) -> None:
    expected = api.predict(MODEL, images, batch_size=4)
    assert [each.error is None for each in expected] == [n != BROKEN for n in range(NUM)]
    texts = {}
    for name in ("", "list.txt", "hub.parquet", "bytes.parquet", "paths.parquet"):
        out = tmp_path / "p.jsonl"
        written = run(images / name, out, overwrite=True)
        assert (written.path, written.num_images, written.num_errors) == (out, NUM - 1, 1)
        records = [json.loads(line) for line in out.read_text().splitlines()]
        assert [each["top"] for each in records] == [each.to_dict()["top"] for each in expected]
        assert [each["error"] is None for each in records] == [n != BROKEN for n in range(NUM)]
        texts[name] = [each["path"] for each in records]
    assert texts[""] == texts["list.txt"] == texts["paths.parquet"]
    assert texts[""] == [str(images / f"{number:02}.png") for number in range(NUM)]
    assert texts["hub.parquet"][3] == "03.png"
    assert texts["bytes.parquet"][3] == str(images / "bytes.parquet:3")
    run(images / "image_paths.parquet", out, overwrite=True, num_workers=2)
    assert [json.loads(line)["path"] for line in out.read_text().splitlines()] == texts[""]


def test_shards_together_are_the_whole(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path / "whole.jsonl")
    parts = [run(images, tmp_path / "p.jsonl", shard=f"{index}/3").path for index in range(3)]
    assert [path.name for path in parts] == [f"p-0000{n}-of-00003.jsonl" for n in range(3)]
    assert [len(path.read_text().splitlines()) for path in parts] == [12, 8, 6]
    together = b"".join(path.read_bytes() for path in parts)
    assert together == (tmp_path / "whole.jsonl").read_bytes()
    ensemble = api.predict_to_file(
        [MODEL, MODEL], images, tmp_path / "e.csv", batch_size=4, shard="2/3"
    )
    single = run(images, tmp_path / "s.csv", shard="2/3")
    assert ensemble.path.read_bytes() == single.path.read_bytes()


@pytest.mark.parametrize("suffix", ["csv", "json", "jsonl", "parquet"])
def test_a_job_that_stops_continues_with_the_same_bytes(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:
    whole, out = tmp_path / f"whole.{suffix}", tmp_path / f"p.{suffix}"
    run(images, whole)
    answer, calls = Predictor.answer, list[int]()

    def stopping(self: Predictor, prepared: Any) -> Any:
        calls.append(len(prepared.names))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return answer(self, prepared)

    monkeypatch.setattr(Predictor, "answer", stopping)
    with pytest.raises(Interrupted, match=r"stopped after 12 of 26 images.*repeat the command"):
        run(images, out)
    assert not out.exists()
    # The last write of a process that was killed may be incomplete.
    with (tmp_path / f"p.{suffix}.partial").open("ab") as file:
        file.write(b'{"path": "12.png", "top": [')
    written = run(images, out)
    assert calls == [4, 4, 4, 4, 4, 4, 4, 2]  # only the fourth batch is predicted twice
    assert (written.num_images, written.num_errors) == (NUM - 1, 1)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, whole.name]


KILLED = """
import sys, time
from pacavit.engine.predictor import Predictor
from pacavit.report import prediction_table
from pacavit_cli.main import main
prediction_table._SYNC_SECONDS = 0
answer = Predictor.answer
def slow(self, prepared):
    time.sleep(0.3)
    return answer(self, prepared)
Predictor.answer = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_killed_process_loses_the_rows_of_its_last_batch_at_most(
    images: Path, tmp_path: Path
) -> None:
    out, whole = tmp_path / "p.csv", tmp_path / "whole.csv"
    run(images, whole)
    words = ["predict", MODEL, str(images), "--out", str(out), "--batch-size", "4"]
    command = [sys.executable, "-c", KILLED, *words, "--device", "cpu", "--num-workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    partial = tmp_path / "p.csv.partial"
    while not (partial.exists() and len(partial.read_bytes().splitlines()) > 9):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(partial.read_bytes().splitlines()) - 1
    assert 8 <= kept < NUM
    assert not out.exists()
    run(images, out)
    assert out.read_bytes() == whole.read_bytes()


def test_rows_of_another_job_are_not_continued(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.csv"
    partial = tmp_path / "p.csv.partial"
    partial.write_text('{"job": {"top_k": 5, "batch_size": 4}}\n{"path": "x", "error": null}\n')
    with pytest.raises(PacavitError, match="rows of a job with other version, model, images"):
        run(images, out)
    assert partial.exists()
    run(images, out, overwrite=True)
    assert len(table(out)) == NUM
    with pytest.raises(PacavitError, match=r"p\.csv exists; give --overwrite"):
        run(images, out)
    # What is left by a crash of the whole machine may hold no job at all.
    partial.write_bytes(b"\0" * 100)
    run(images, out, overwrite=True, top_k=1)
    assert list(table(out)[0]) == ["path", "class_1", "probability_1", "error"]


def test_two_processes_do_not_write_the_same_file(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, answer = tmp_path / "p.csv", Predictor.answer

    def second(self: Predictor, prepared: Any) -> Any:
        monkeypatch.setattr(Predictor, "answer", answer)
        with pytest.raises(PacavitError, match=r"another process is writing .*p\.csv"):
            run(images, out)
        return answer(self, prepared)

    monkeypatch.setattr(Predictor, "answer", second)
    assert run(images, out).num_images == NUM - 1


def test_memory_does_not_grow_with_the_rows(images: Path, tmp_path: Path) -> None:
    """Of each further row, only the position of its path stays in memory."""

    def peak(num: int, suffix: str) -> int:
        listed, out = tmp_path / "many.txt", tmp_path / f"many.{suffix}"
        listed.write_text("00.png\n" * num)
        top = tuple(ClassProbability(name, 0.125) for name in "abcdefgh")
        tracemalloc.start()
        inputs, _ = find_inputs(listed)
        assert len(inputs) == num
        writer = TableWriter(out, overwrite=True)
        for position in range(num):
            writer.add(ImagePrediction(inputs[position].name, top), no_pixels)
        writer.finish()
        memory = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return memory

    for suffix in ("jsonl", "csv"):
        few, many = peak(500, suffix), peak(4_500, suffix)
        assert (many - few) / 4_000 < 64  # bytes a row; as an object it would have 1,500


def no_pixels() -> torch.Tensor:
    raise AssertionError("a table needs no pixels")


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("2/5", {}, Shard(2, 5)),
        ("auto", {"RANK": "3", "WORLD_SIZE": "8"}, Shard(3, 8)),
        ("auto", {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, Shard(0, 1)),
        (
            "auto",
            {"RANK": "1", "WORLD_SIZE": "2", "SLURM_PROCID": "0", "SLURM_NTASKS": "9"},
            Shard(1, 2),
        ),
    ],
)
def test_shards(text: str, environment: dict[str, str], expected: Shard) -> None:
    assert parse_shard(text, environment) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4/4", "the shards of 4 are 0/4 to 3/4"),
        ("0/0", "must be at least 1"),
        ("1", "is no shard; give index/number"),
        ("-1/4", "is no shard"),
        ("auto", "there are none: give --shard 0/4"),
    ],
)
def test_wrong_shards(text: str, message: str) -> None:
    with pytest.raises(PacavitError, match=message):
        parse_shard(text, {})


def test_each_process_of_a_launcher_has_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert launched_device({"LOCAL_RANK": "1"}) == "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert launched_device({"LOCAL_RANK": "1", "SLURM_LOCALID": "0"}) == "cuda:1"
    assert launched_device({"SLURM_LOCALID": "6"}) == "cuda:2"
    assert launched_device({}) == "auto"


def test_shards_are_equal_and_made_of_whole_batches() -> None:
    for num, size, count in ((26, 4, 3), (5, 4, 7), (1_000_000, 16, 9), (1, 1, 1)):
        rows = [Shard(index, count).rows(num, size) for index in range(count)]
        assert [each.start for each in rows[1:]] == [each.stop for each in rows[:-1]]
        assert (rows[0].start, rows[-1].stop) == (0, num)
        assert all(each.start % size == 0 or not each for each in rows)
        assert max(map(len, rows)) - min(map(len, rows)) < 2 * size


def test_lists_of_other_systems(images: Path, tmp_path: Path) -> None:
    """Lines end as on Windows, some are empty, and the last has no end."""
    (tmp_path / "list.lst").write_bytes(b"a b.png\r\n\r\n\n\xe9.png\nsub/\xc3\xa9.png")
    inputs, _ = find_inputs([tmp_path / "list.lst", b"bytes", tmp_path / "x.png"])
    names = [os.fsencode(inputs[n].name.relative_to(tmp_path)) for n in (0, 1, 2, 4)]
    assert names == [b"a b.png", b"\xe9.png", b"sub/\xc3\xa9.png", b"x.png"]
    assert inputs[3].name == Path("image 3")
    assert len(inputs) == 5


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    (tmp_path / "empty.txt").write_text("\n\n")
    (tmp_path / "zero.txt").write_bytes(b"")
    (tmp_path / "folder.txt").mkdir()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and so on")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "other.parquet")
    (tmp_path / "nothing").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.txt", "there is no list of images"),
        ("empty.txt", "names no images; write one path a line"),
        ("zero.txt", "names no images"),
        ("folder.txt", "no images in folder"),
        ("broken.parquet", "is not a readable parquet file"),
        ("missing.parquet", "is not a readable parquet file"),
        ("other.parquet", "has no column of images: image or img .*; it has text"),
        ("nothing", "no images in folder"),
    ],
)
def test_inputs_that_cannot_be_read(bad: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        find_inputs(bad / name)
    assert "\n" not in str(caught.value)


def test_bad_rows_are_rows_with_an_error(images: Path, tmp_path: Path) -> None:
    good = (images / "00.png").read_bytes()
    structs = [
        {"bytes": good, "path": None},
        {"bytes": None, "path": None},
        None,
        {"bytes": b"", "path": "empty.png"},
        {"bytes": good[:60], "path": "cut.png"},
        {"bytes": None, "path": "missing.png"},
        {"bytes": None, "path": str(images / "01.png")},
    ]
    pq.write_table(pa.table({"image": structs}), tmp_path / "bad.parquet")
    written = run(tmp_path / "bad.parquet", tmp_path / "p.csv")
    assert (written.num_images, written.num_errors) == (2, 5)
    errors = [row["error"] for row in table(tmp_path / "p.csv")]
    for error, part in zip(
        errors,
        (
            "",
            "bad.parquet: row 1 has no image",
            "bad.parquet: row 2 has no image",
            "empty.png is not an image",
            "cut.png is a broken image",
            "there is no image file",
            "",
        ),
        strict=True,
    ):
        assert part in error
        assert bool(part) == bool(error)
    (tmp_path / "list.txt").write_bytes(b"a\0b.png\n.\nnot there.png\n   \n")
    written = run(tmp_path / "list.txt", tmp_path / "q.csv")
    assert written.num_errors == len(written.errors) == 4
    assert "is no path of a file" in written.errors[0]
    assert "is a folder" in written.errors[1]
