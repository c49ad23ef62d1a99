"""Predictions on the console and in files; their JSON is tested with the command."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pacavit.errors import PacavitError
from pacavit.report.prediction import PictureFolder, print_predictions
from pacavit.report.prediction_table import TableWriter
from pacavit.tasks.base import RecordPrediction, TaskPrediction
from pacavit.tasks.classification import ClassProbability, ImagePrediction
from pacavit.tasks.multilabel.predictions import LabelsPrediction

CAT, DOG = ClassProbability("cat", 0.75), ClassProbability("dog", 0.25)
PREDICTIONS = [
    ImagePrediction(Path("a,b.png"), (CAT, DOG)),
    ImagePrediction(Path("c.png"), (), "c.png is broken"),
]
HEADER = ["path", "class_1", "probability_1", "class_2", "probability_2", "error"]


def write(predictions: Sequence[TaskPrediction], out: Path) -> Path:
    writer = TableWriter(out, overwrite=False)
    for prediction in predictions:
        writer.add(prediction, lambda: pytest.fail("a table needs no pixels"))
    writer.finish()
    return out


def test_names_and_paths_are_shown_as_they_are() -> None:
    top = (ClassProbability("[b]odd", 0.995), ClassProbability("other", 0.005))
    stream = io.StringIO()
    print_predictions(
        [ImagePrediction(Path("[x].png"), top)], console=Console(file=stream, width=80)
    )
    text = stream.getvalue()
    assert "[x].png" in text
    assert "99.50%  [b]odd" in text
    assert text.index("[b]odd") < text.index("other")


def rows(out: Path) -> list[list[str]]:
    with out.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_tables_of_other_tasks(tmp_path: Path) -> None:
    labels = LabelsPrediction(Path("a.png"), (CAT, DOG), labels=("cat", "dog"))
    header, row = rows(write([labels], tmp_path / "labels.csv"))
    assert dict(zip(header, row, strict=True))["labels"] == "cat;dog"
    table = write([RecordPrediction(Path("a.png"), 3)], tmp_path / "records.csv")
    assert rows(table) == [["path", "prediction", "error"], ["a.png", "3", ""]]
    assert rows(write([], tmp_path / "none.csv")) == [["path", "error"]]
    assert json.loads(write([], tmp_path / "none.json").read_text()) == []
    assert pq.read_table(write([], tmp_path / "none.parquet")).shape == (0, 2)


def test_columns_and_types_are_those_of_all_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column may begin long after the first row, and whole row groups may have no value."""
    monkeypatch.setattr("pacavit.report.prediction_table._GROUP_ROWS", 2)
    broken = [ImagePrediction(Path(f"{n}.png"), (), "is broken") for n in range(5)]
    table = pq.read_table(write([*broken, *PREDICTIONS], tmp_path / "p.parquet"))
    assert table.column_names == HEADER
    assert table["class_2"].to_pylist() == [None] * 5 + ["dog", None]
    assert table["probability_2"].to_pylist() == [None] * 5 + [0.25, None]
    assert rows(write([*broken, *PREDICTIONS], tmp_path / "p.csv"))[0] == HEADER


def test_files_hold_what_was_predicted(tmp_path: Path) -> None:
    for name in ("p.csv", "new/p.json", "p.parquet", "p.jsonl"):
        write(PREDICTIONS, tmp_path / name)
    assert rows(tmp_path / "p.csv") == [
        HEADER,
        ["a,b.png", "cat", "0.75", "dog", "0.25", ""],
        ["c.png", "", "", "", "", "c.png is broken"],
    ]
    text = (tmp_path / "new" / "p.json").read_text()
    records = json.loads(text)
    assert text == json.dumps([each.to_dict() for each in PREDICTIONS], indent=2) + "\n"
    lines = (tmp_path / "p.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == records
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "new",
        "p.csv",
        "p.jsonl",
        "p.parquet",
    ]
    assert records[0]["top"][1] == {"class": "dog", "probability": 0.25}
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.column_names == HEADER
    assert table["probability_1"].to_pylist() == [0.75, None]
    assert table["error"].to_pylist() == [None, "c.png is broken"]


def test_columns_of_parquet_files_have_types_without_errors_too(tmp_path: Path) -> None:
    write(PREDICTIONS[:1], tmp_path / "p.parquet")
    assert str(pq.read_schema(tmp_path / "p.parquet").field("error").type) == "string"


def test_files_in_the_way_are_refused(tmp_path: Path) -> None:
    (tmp_path / "old.CSV").touch()
    with pytest.raises(PacavitError, match=r"old\.CSV exists; give --overwrite"):
        TableWriter(tmp_path / "old.CSV", overwrite=False)
    TableWriter(tmp_path / "old.CSV", overwrite=True)
    TableWriter(tmp_path / "new" / "p.parquet", overwrite=False)
    with pytest.raises(PacavitError, match=r"x\.xlsx; its name must end in"):
        TableWriter(tmp_path / "x.xlsx", overwrite=True)
    with pytest.raises(PacavitError, match=r"x\.csv: pictures are written into a folder"):
        PictureFolder(tmp_path / "x.csv", overwrite=False)
