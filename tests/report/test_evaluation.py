"""Evaluations as files and tables."""

import csv
import errno
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from pacavit.engine.evaluate import Evaluation
from pacavit.engine.scoring import SplitScore
from pacavit.errors import CheckpointError
from pacavit.report.evaluation import (
    RECORD,
    print_evaluation,
    read_evaluation,
    write_evaluation,
)
from pacavit.report.tasks import ClassificationReport
from pacavit.report.tasks.classification.observe import TopClassesObserver

FILES = (RECORD, *ClassificationReport.files)


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_written_files_say_what_was_measured(
    score: SplitScore, observed: TopClassesObserver, tmp_path: Path
) -> None:
    folder = tmp_path / "a" / "b"
    write_evaluation(score, folder, title="cats, test", facts={"command": "a"}, observed=observed)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    record = json.loads((folder / "evaluation.json").read_text())
    assert record["command"] == "a"
    assert record["scores"]["accuracy"] == 0.8
    assert record["per_class"][1]["name"] == "$dog|"
    assert record["arrays"]["confusion"] == [[5, 1], [1, 3]]
    assert read_csv(folder / "confusion.csv") == [
        ["true class / predicted class", "cat, [bold]", "$dog|"],
        ["cat, [bold]", "5", "1"],
        ["$dog|", "1", "3"],
    ]
    assert read_csv(folder / "per_class.csv")[1] == ["cat, [bold]", "0.9", "0.7", "0.75", "6"]
    predictions = read_csv(folder / "predictions.csv")
    assert len(predictions) == 11
    assert predictions[10] == ["pets #9", "$dog|", "0.2", "cat, [bold]", "0.8"]
    with Image.open(folder / "confusion.png") as picture:
        assert picture.format == "PNG"


def test_writing_again_replaces(
    score: SplitScore, observed: TopClassesObserver, tmp_path: Path
) -> None:
    write_evaluation(score, tmp_path, title="first", facts={"command": "first"}, observed=observed)
    write_evaluation(
        score, tmp_path, title="second", facts={"command": "second"}, observed=observed
    )
    assert json.loads((tmp_path / "evaluation.json").read_text())["command"] == "second"


FACTS = {"data": "pets", "date": "2026-01-02T03:04:05+00:00", "weights_sha256": "ab"}


def test_what_is_written_can_be_read(
    score: SplitScore, observed: TopClassesObserver, tmp_path: Path
) -> None:
    write_evaluation(score, tmp_path, title="pets", facts=FACTS, observed=observed)
    stored = read_evaluation(tmp_path, "ab")
    assert stored is not None
    assert stored.evaluation.to_dict() == score.evaluation.to_dict()
    assert (stored.data, stored.date.year) == ("pets", 2026)
    assert [example.index for example in stored.details.wrong] == [9, 5]
    assert stored.broken == ()
    write_evaluation(
        score,
        tmp_path,
        title="pets",
        facts={**FACTS, "broken_images": ["a", "b"]},
        observed=observed,
    )
    stored = read_evaluation(tmp_path, "ab")
    assert stored is not None
    assert stored.broken == ("a", "b")


def test_an_evaluation_of_the_first_release_is_read(
    score: SplitScore, observed: TopClassesObserver, tmp_path: Path
) -> None:
    write_evaluation(score, tmp_path, title="pets", facts=FACTS, observed=observed)
    now = json.loads((tmp_path / RECORD).read_text())
    scores = now.pop("scores")
    other = {"calibration_error": scores.pop("calibration_error")}
    old = {name: value for name, value in now.items() if name not in ("task", "arrays")}
    old |= {**scores, "confusion": now["arrays"]["confusion"], "other_scores": other}
    (tmp_path / RECORD).write_text(json.dumps(old))
    stored = read_evaluation(tmp_path, "ab")
    assert stored is not None
    assert stored.evaluation.to_dict() == score.evaluation.to_dict()


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_written_is_one_line(
    name: str,
    score: SplitScore,
    observed: TopClassesObserver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_evaluation(score, tmp_path, title="pets", facts=FACTS, observed=observed)
    before = (tmp_path / name).read_bytes()

    write_bytes = Path.write_bytes

    def fill_the_disk(path: Path, data: bytes) -> int:
        if name in path.name:
            write_bytes(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, data)

    monkeypatch.setattr(Path, "write_bytes", fill_the_disk)
    with pytest.raises(CheckpointError, match=rf"cannot write .*{name}: No space") as caught:
        write_evaluation(
            score, tmp_path, title="pets", facts={**FACTS, "more": 1}, observed=observed
        )
    assert "\n" not in str(caught.value)
    assert (tmp_path / name).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_only_an_evaluation_of_these_weights_is_read(
    score: SplitScore, observed: TopClassesObserver, tmp_path: Path
) -> None:
    assert read_evaluation(tmp_path, "ab") is None
    write_evaluation(score, tmp_path, title="pets", facts=FACTS, observed=observed)
    assert read_evaluation(tmp_path, "cd") is None


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("evaluation.json", '{"accuracy": 0.5'),
        ("evaluation.json", '{"weights_sha256": "ab"}'),
        ("evaluation.json", "[]"),
        ("examples.json", "{}"),
    ],
)
def test_a_broken_evaluation_is_reported(
    file: str, content: str, score: SplitScore, observed: TopClassesObserver, tmp_path: Path
) -> None:
    write_evaluation(score, tmp_path, title="pets", facts=FACTS, observed=observed)
    (tmp_path / file).write_text(content)
    with pytest.raises(CheckpointError, match=r"cannot be read .* evaluate again"):
        read_evaluation(tmp_path, "ab")


def test_printed_tables_hold_every_number(evaluation: Evaluation, tmp_path: Path) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=100)
    measured = replace(evaluation, folder=tmp_path)
    print_evaluation(measured, title="runs/[x], test", console=console)
    text = stream.getvalue()
    for part in ("runs/[x]", "cat, [bold]", "$dog|", "1,234 images/s", "10 images"):
        assert part in text
    assert "calibration error" in text
    for number in ("0.5000", "0.0625", "0.8000", "0.8100", "0.8300", "0.8600", "0.7500"):
        assert number in text
    for name in FILES:
        assert f"wrote {tmp_path / name}" in text
