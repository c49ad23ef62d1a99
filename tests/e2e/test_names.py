"""Every verb works with names that are not UTF-8.

Archives from old systems hold names in Latin-1 or code pages. They are shown escaped.
"""

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import precision_recall_fscore_support

from pacavit_cli.main import main

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")

LATIN = os.fsdecode(b"caf\xe9")
SETTINGS = ["train.epochs=1", "train.batch_size=8", "data.options.image_size=32"]
SETTINGS += ["task.image_size=32", "train.precision=fp32"]


def make_images(folder: Path, num: int, low: int) -> None:
    rng = np.random.default_rng([low, *folder.parent.name.encode()])  # other images in each split
    folder.mkdir(parents=True)
    for number in range(num):
        pixels = rng.integers(low, low + 60, (40, 36, 3), np.uint8)
        Image.fromarray(pixels).save(folder / os.fsdecode(b"%d-\xfc.png" % number))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, class folders and the folder of the data have names that are not UTF-8."""
    root = tmp_path_factory.mktemp("data") / LATIN
    make_images(root / "train" / os.fsdecode(b"ab\xe9ille"), 12, 0)
    make_images(root / "train" / "ant", 12, 100)
    make_images(root / "val" / "ant", 2, 100)
    make_images(root / "test" / os.fsdecode(b"ab\xe9ille"), 3, 0)
    (root / "train" / "ant" / os.fsdecode(b"broken-\xff.png")).write_text("no image")
    (root / "train" / "ant" / os.fsdecode(b"notes-\xff.txt")).write_text("no image")
    return root


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / LATIN
    words = ["train", "folder_nano", "--data", str(root), "--out", str(out)]
    assert main([*words, *(word for setting in SETTINGS for word in ("--set", setting))]) == 0
    return out


def texts(folder: Path) -> dict[str, str]:
    """All text files below a folder, which must be UTF-8 and hold no lone surrogates."""
    found = {
        path.name: path.read_text("utf-8")
        for path in folder.rglob("*")
        if path.suffix in (".txt", ".json", ".html", ".csv", ".jsonl", ".svg", ".md")
    }
    assert not any(r"\udc" in text for text in found.values())
    return found


def test_training_records_what_repeats_it(run: Path, root: Path) -> None:
    found = texts(run)
    assert found["broken_images.txt"].count("\n") == 1
    assert r"caf\xe9/train/ant/broken-\xff.png is not an image" in found["broken_images.txt"]
    recipe = json.loads(found["recipe.json"])
    assert recipe["data"]["root"] == root.as_uri()
    assert r"ab\xe9ille" in found["report.html"]


def test_a_finished_run_is_resumed_and_another_one_repeats_it(
    run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "folder_nano", "--data", str(root), "--out", str(run), "--resume"]
    assert main([*words, *(word for setting in SETTINGS for word in ("--set", setting))]) == 0
    assert r"caf\xe9" in capsys.readouterr().out
    again = tmp_path / "again"
    assert main(["train", str(run), "--out", str(again)]) == 0
    output = capsys.readouterr().out
    assert r"1 file of another kind (train/ant/notes-\xff.txt)" in output.replace("\n", " ")
    assert (again / "weights.safetensors").is_file()
    words = ["train", "folder_nano", "--set", f"data.root={root}", "--out", str(tmp_path / "third")]
    assert main([*words, *(word for setting in SETTINGS for word in ("--set", setting))]) == 0


def test_evaluate_with_a_class_missing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / LATIN
    assert main(["evaluate", str(run), "--out", str(out)]) == 0
    assert r"ab\xe9ille" in capsys.readouterr().out
    found = texts(out)
    record = json.loads(found["evaluation.json"])
    assert record["num_images"] == 3
    assert any(r"caf\xe9" in word for word in record["command"])
    rows = list(csv.DictReader(found["per_class.csv"].splitlines()))
    assert [(row["class"], row["support"]) for row in rows] == [(r"ab\xe9ille", "3"), ("ant", "0")]
    predicted = list(csv.DictReader(found["predictions.csv"].splitlines()))
    expected = precision_recall_fscore_support(
        [row["true_class"] for row in predicted],
        [row["predicted_class"] for row in predicted],
        average="macro",  # of the classes that occur, as a true or a predicted one
        zero_division=0,
    )
    for name, value in zip(("precision", "recall", "f1"), expected[:3], strict=True):
        assert record["scores"][f"{name}_macro"] == pytest.approx(value)
    assert main(["evaluate", str(run), "--split", "val"]) == 0
    texts(run)


def test_predict(run: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = root / "test" / os.fsdecode(b"ab\xe9ille")
    assert main(["predict", str(run), str(folder)]) == 0
    output = capsys.readouterr().out
    assert r"caf\xe9/test/ab\xe9ille/0-\xfc.png" in output.replace("\n", "")
    broken = root / "train" / "ant" / os.fsdecode(b"broken-\xff.png")
    assert main(["predict", str(run), str(folder), str(broken), "--json"]) == 2
    captured = capsys.readouterr()
    records = json.loads(captured.out)
    json.dumps(records, ensure_ascii=False).encode()
    assert records[0]["path"] == rf"{root.parent}/caf\xe9/test/ab\xe9ille/0-\xfc.png"
    assert r"broken-\xff.png" in records[-1]["error"]
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


def test_explain(run: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = root / "train" / "ant"
    images = [str(folder / os.fsdecode(name)) for name in (b"0-\xfc.png", b"broken-\xff.png")]
    out = tmp_path / LATIN
    assert main(["explain", str(run), *images, "--out", str(out), "--class", r"ab\xe9ille"]) == 2
    assert r"0-\xfc.png: ab\xe9ille" in capsys.readouterr().out
    found = texts(out)
    assert r"broken-\xff.png" in found["index.html"]
    good, broken = json.loads(found["explanations.json"])
    assert good["path"].endswith(r"0-\xfc.png")
    assert broken["path"].endswith(r"broken-\xff.png")
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"0-%xfc"}
    assert main(["explain", str(run), images[0], "--out", str(out), "--overwrite", "--json"]) == 0
    json.loads(capsys.readouterr().out)


def test_compare(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / LATIN
    words = ["compare", "folder_nano", "--data", str(root), "--out", str(out)]
    words += ["--over", "model.clustering=conv,mlp"]
    assert main([*words, *(word for setting in SETTINGS for word in ("--set", setting))]) == 0
    assert r"caf\xe9" in capsys.readouterr().out
    texts(out)


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / os.fsdecode(b"\xe9\n\x1b[31m")
    for words in (
        ["train", "folder_nano", "--data", str(missing), "--out", str(tmp_path / "x")],
        ["train", "digits", "--set", f"model.init={missing}", "--out", str(tmp_path / "x")],
        ["train", f"{missing}.toml", "--out", str(tmp_path / "x")],
        ["predict", "cifar10_nano_conv", str(missing)],
        ["predict", f"{missing}.safetensors", "x.png"],
        ["evaluate", str(missing)],
    ):
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: "), error
        assert error.count("\n") == 1, error
        assert r"\xe9" in error
