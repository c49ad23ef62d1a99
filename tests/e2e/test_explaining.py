"""Explain images, and measure explanations, through the command line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from pacavit import api
from pacavit.errors import PacavitError
from pacavit.explain.evaluation.metrics import gini
from pacavit_cli.main import main


def test_explain_writes_a_page_and_pictures(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (40, 30)).save(tmp_path / "a.png")
    out = tmp_path / "why"
    words = ["explain", str(digits_run), str(tmp_path / "a.png"), "--out", str(out)]
    assert main(words) == 0
    assert (out / "index.html").is_file()
    assert len(list((out / "a").glob("*.png"))) > 3
    capsys.readouterr()
    assert main(words) == 2
    assert str(out) in capsys.readouterr().err


def test_the_measured_map_becomes_the_default(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before: two maps, and the command that measures them. After: the map that was measured."""
    run = Path(shutil.copytree(digits_run, tmp_path / "run"))
    Image.new("L", (40, 30)).save(tmp_path / "a.png")

    def explain(out: str, *options: str) -> tuple[str, str]:
        words = ["explain", str(run), str(tmp_path / "a.png"), "--out", str(tmp_path / out)]
        assert main([*words, *options]) == 0
        page = (tmp_path / out / "index.html").read_text(encoding="utf-8")
        return capsys.readouterr().out, page

    command = f"pacavit explain-evaluate {run} --out {run / 'explain-evaluate'}"
    on_page = "pacavit explain-evaluate DIR --out DIR/explain-evaluate"  # pages name no folders
    for text, measure in zip(explain("before"), (command, on_page), strict=True):
        assert "Neither cluster contributions nor relevance was measured on images of digits" in (
            text
        )
        assert measure in text
    assert (tmp_path / "before" / "a" / "relevance.png").is_file()
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "Neither cluster contributions nor relevance was measured" in report
    assert on_page in report

    words = ["explain-evaluate", str(run), "--out", str(run / "explain-evaluate")]
    assert main([*words, "--methods", "class_map,random", "--limit", "10"]) == 0
    assert "The map by class map was the most faithful of 1" in capsys.readouterr().out
    for text in explain("after"):
        assert "The map by class map was the most faithful of 1 measured on 10 images" in text
        assert command not in text
        assert on_page not in text
    assert not (tmp_path / "after" / "a" / "relevance.png").is_file()
    records = json.loads((tmp_path / "after" / "explanations.json").read_text())
    assert records[0]["method"] == "class_map"

    # A method that was asked for needs no choice.
    assert "faithful" not in explain("asked", "--method", "relevance")[0]


def test_a_folder_that_holds_no_measurement_is_one_line(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (40, 30)).save(tmp_path / "a.png")
    words = ["explain", str(digits_run), str(tmp_path / "a.png"), "--out", str(tmp_path / "why")]
    assert main([*words, "--measured", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"no measurement at {tmp_path / 'faithfulness.json'}" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "why").exists()


def test_an_enormous_image_is_one_line(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "enormous.png"
    Image.new("1", (9000, 9000)).save(path)
    assert main(["explain", str(digits_run), str(path), "--out", str(tmp_path / "why")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert f"{path} has 9000 x 9000 pixels, more than the limit" in error
    assert error.count("\n") == 1


def test_explain_evaluate_measures_the_chosen_images(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["explain-evaluate", str(digits_run), "--out", str(tmp_path), "--methods"]
    words += ["class_map,center", "--limit", "40", "--skip", "340"]
    assert main(words) == 0
    assert "class_map" in capsys.readouterr().out
    assert main(words) == 2
    assert "holds an evaluation of explanations; give --overwrite" in capsys.readouterr().err
    numbers = json.loads((tmp_path / "faithfulness.json").read_text())
    assert numbers["num_images"] == 20
    assert numbers["command"][-6:] == [
        *("--limit", "40", "--skip", "340", "--methods", "class_map,center")
    ]
    assert [row["method"] for row in numbers["methods"]] == ["class_map", "center"]
    for row in numbers["methods"]:
        mean, low, high = row["predicted"]["ROAD"]
        assert -0.5 <= low <= mean <= high <= 0.5
        assert row["predicted"]["sensitivity"][0] >= 0
    assert {stage["stage"] for stage in numbers["clusters"]}


def test_explain_evaluate_resumes(
    digits_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["explain-evaluate", str(digits_run), "--methods", "class_map,random", "--limit", "8"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert main([*words, "--out", str(whole)]) == 0

    def stopping(maps: Tensor) -> Tensor:
        if any((out / "faithfulness.unfinished").glob("maps-class_map-*")):
            raise KeyboardInterrupt
        return gini(maps)

    with monkeypatch.context() as patch:
        patch.setattr("pacavit.explain.evaluation.methods.gini", stopping)
        assert main([*words, "--out", str(out)]) == 130
    assert "interrupted: repeat the same command to resume" in capsys.readouterr().err
    assert main([*words, "--out", str(out), "--skip", "8"]) == 2
    told = capsys.readouterr().err
    assert "unfinished evaluation with other settings: skip 0, not 8" in told
    assert told.count("\n") == 1
    torch.manual_seed(1234)
    assert main([*words, "--out", str(out)]) == 0
    assert "resuming the evaluation in" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {path.name for path in whole.iterdir()}
    first, second = (json.loads((each / "faithfulness.json").read_text()) for each in (whole, out))
    for found in (first, second):
        for row in found["methods"]:
            del row["milliseconds"]
    assert first == second


def test_explain_evaluate_reports_errors_in_one_line(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["explain-evaluate", str(digits_run), "--out", str(tmp_path / "out")]
    for more, told in (
        (["--skip", "360"], "--skip 360 leaves none of the 360 images of test"),
        (["--methods", "class_mop"], "class_map"),
        (["--split", "tets"], "test"),
        (["--precision", "fp16"], "did you mean"),
        (["--out", str(digits_run / "recipe.json")], "recipe.json is a file"),
        (["--out", str(digits_run)], "holds other files than an evaluation of explanations"),
    ):
        assert main([*words, *more]) == 2
        captured = capsys.readouterr()
        assert told in captured.err
        assert captured.err.count("error: ") == 1
        assert not (tmp_path / "out" / "faithfulness.json").exists()


def test_old_names_of_verb_and_control_work_and_warn(
    digits_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["explain-bench", str(digits_run), "--out", str(tmp_path), "--limit", "4"]
    with pytest.warns(FutureWarning, match="'centre' is now called 'center'"):
        assert main([*words, "--methods", "centre"]) == 0
    captured = capsys.readouterr()
    warnings = [line for line in captured.err.splitlines() if line.startswith("warning:")]
    assert len(warnings) == 1
    assert "explain-bench is now called explain-evaluate" in warnings[0]
    numbers = json.loads((tmp_path / "faithfulness.json").read_text())
    assert numbers["command"][1] == "explain-evaluate"
    assert [row["method"] for row in numbers["methods"]] == ["center"]
    with (
        pytest.warns(FutureWarning, match="explain_bench is now called explain_evaluate"),
        pytest.raises(PacavitError, match="give --overwrite"),
    ):
        api.explain_bench(digits_run, tmp_path)
    main(["--help"])
    shown = capsys.readouterr().out
    assert "explain-evaluate" in shown
    assert "explain-bench" not in shown
