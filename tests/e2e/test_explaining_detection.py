"""Explain objects through the command line."""

import json
from pathlib import Path

import pytest
from PIL import Image

from pacavit_cli.main import main


def test_objects_are_explained_by_commands(
    detector: Path, noise_image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["explain", str(detector), str(noise_image)]
    assert main([*words, "--out", str(tmp_path / "all")]) == 0
    told = capsys.readouterr().out
    assert "noise.png: disc 0." in told
    assert "was not measured on instance segmentation" in told
    assert f"page in {tmp_path / 'all' / 'index.html'}" in told
    [everything] = json.loads((tmp_path / "all" / "explanations.json").read_text())
    first, second = everything["boxes"][:2]
    # The box of an object as it is written down asks about this object.
    box = ",".join(map(str, second["box"]))
    assert main([*words, "--box", box, "--out", str(tmp_path / "one"), "--json"]) == 0
    [record] = json.loads(capsys.readouterr().out)
    assert record["boxes"] == [second]
    asked = ["--box", box, "--class", first["class"], "--out", str(tmp_path / "other")]
    assert main([*words, *asked]) == 0
    [record] = json.loads((tmp_path / "other" / "explanations.json").read_text())
    assert [(each["class"], each["score"]) for each in record["boxes"]] == [(first["class"], None)]


def test_an_image_without_objects_is_no_error(
    detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (80, 60), (128, 128, 128)).save(tmp_path / "gray.png")
    words = ["explain", str(detector), str(tmp_path / "gray.png"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert "gray.png: no object with a score of at least 0.3, in " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--box", "1,2,3"], "'1,2,3' is not a box; write its left, top, right and bottom"),
        (["--box", "1,2,nan,4"], "is not a box"),
        (["--box", "90,5,99,9"], "nothing of the box 90,5,99,9"),
        (["--region", "80,5"], "no pixel 80,5 (x,y): the image has 80 x 60 pixels"),
        (["--region", "1,1", "--box", "1,2,3,4"], "give a box or a pixel, not both"),
        (["--class", "dics"], "did you mean 'disc'"),
        (["--mask", "none.png"], "a mask is for segmentation models"),
        (["--method", "drise"], "did you mean 'd_rise'"),
    ],
)
def test_wrong_questions_end_with_a_line(
    detector: Path,
    noise_image: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    told: str,
) -> None:
    words = ["explain", str(detector), str(noise_image), "--out", str(tmp_path / "out")]
    assert main([*words, *options]) == 2
    assert told in capsys.readouterr().err.replace("\n", " ")


def test_maps_of_detections_are_not_measured(
    detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain-evaluate", str(detector), "--out", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "does not classify images" in lines[0]
    assert not (tmp_path / "out").exists()
