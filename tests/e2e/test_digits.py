"""Train, evaluate, predict and resume through the command line."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from pacavit_cli.main import main


def test_evaluate_prints_and_saves(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results"
    assert main(["evaluate", str(digits_run), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "macro" in printed
    assert "images/s" in printed
    record = json.loads((out / "evaluation.json").read_text())
    assert record["split"] == "test"
    assert record["num_images"] == 360
    assert record["command"] == ["pacavit", "evaluate", str(digits_run), "--out", str(out)]
    with (out / "confusion.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    counts = [[int(count) for count in row[1:]] for row in rows[1:]]
    assert sum(map(sum, counts)) == 360
    hits = sum(row[index] for index, row in enumerate(counts))
    assert record["scores"]["accuracy"] == pytest.approx(hits / 360)
    with Image.open(out / "confusion.png") as picture:
        assert min(picture.size) > 400


def test_evaluate_inside_the_run_by_default(digits_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(digits_run, tmp_path / "run")
    assert main(["evaluate", str(run), "--split", "val"]) == 0
    assert (run / "evaluation-val" / "per_class.csv").is_file()


def test_predict_takes_any_size_and_mode(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for mode, size in (("L", (7, 300)), ("RGBA", (33, 32)), ("P", (1, 1)), ("CMYK", (640, 480))):
        suffix = "jpg" if mode == "CMYK" else "png"
        Image.new(mode, size).save(folder / f"{mode}.{suffix}")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    assert main(["predict", str(digits_run), str(folder), str(broken), "--json"]) == 2
    captured = capsys.readouterr()
    records = json.loads(captured.out)
    assert [Path(record["path"]).stem for record in records] == ["CMYK", "L", "P", "RGBA", "broken"]
    for record in records[:4]:
        probabilities = [entry["probability"] for entry in record["top"]]
        assert len(probabilities) == 5
        assert probabilities == sorted(probabilities, reverse=True)
    assert captured.err.count("error: ") == 1
    assert "broken.png" in captured.err


@pytest.mark.slow
def test_resume_continues_an_interrupted_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = [sys.executable, "-m", "pacavit_cli", "train", "digits", "--out", str(out)]
    words += ["--set", "train.epochs=2"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(out.glob("checkpoints/step-*")):
        assert process.poll() is None, "the run ended before it wrote a checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130, error
    assert error.splitlines()[-1].startswith("interrupted: ")
    assert "--resume" in error
    assert main([*words[3:], "--resume"]) == 0
    assert main(["evaluate", str(out)]) == 0
