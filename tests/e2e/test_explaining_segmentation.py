"""Explain segmentations through the command line."""

import json
from pathlib import Path

import pytest

from pacavit_cli.main import main


def test_regions_are_explained_by_commands(
    segmenter: Path, noise_image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["explain", str(segmenter), str(noise_image)]
    assert main([*words, "--out", str(tmp_path / "all")]) == 0
    told = capsys.readouterr().out
    assert "noise.png: " in told
    assert "was not measured on segmentation" in told
    assert f"page in {tmp_path / 'all' / 'index.html'}" in told
    asked = ["--region", "70,50", "--class", "road", "--out", str(tmp_path / "one")]
    assert main([*words, *asked]) == 0
    [record] = json.loads((tmp_path / "one" / "explanations.json").read_text())
    assert [region["class"] for region in record["regions"]] == ["road"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--region", "5"], "'5' is not a pixel; write its column and row, as in 120,80"),
        (["--region", "-1,5"], "is not a pixel"),
        (["--region", "80,5"], "no pixel 80,5 (x,y): the image has 80 x 60 pixels"),
        (["--class", "raod"], "did you mean 'road'"),
        (["--method", "gradcam"], "did you mean 'grad_cam'"),
        (["--mask", "none.png"], "cannot read the mask none.png"),
    ],
)
def test_wrong_questions_end_with_a_line(
    segmenter: Path,
    noise_image: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    told: str,
) -> None:
    words = ["explain", str(segmenter), str(noise_image), "--out", str(tmp_path / "out")]
    assert main([*words, *options]) == 2
    assert told in capsys.readouterr().err.replace("\n", " ")


def test_a_classifier_has_no_regions(
    noise_image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["explain", "cifar10_nano_conv", str(noise_image), "--out", str(tmp_path / "out")]
    assert main([*words, "--region", "1,1"]) == 2
    assert "for models that segment or detect" in capsys.readouterr().err


def test_maps_of_segmentations_are_not_measured(
    segmenter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain-evaluate", str(segmenter), "--out", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "does not classify images" in lines[0]
    assert not (tmp_path / "out").exists()
