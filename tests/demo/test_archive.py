"""The zip that visitors download."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest

from pacavit.demo.archive import write_zip
from pacavit.demo.classification.classified import Classified
from pacavit.errors import PacavitError
from pacavit.report.explanation.page import write_explanations


def test_the_zip_holds_the_page_and_no_temporary_names(ship: Classified, tmp_path: Path) -> None:
    file = write_zip([ship], tmp_path, write_explanations)
    assert file.name == "ship-explained.zip"
    with ZipFile(file) as archive:
        names = set(archive.namelist())
        assert {"ship-explained/index.html", "ship-explained/ship/class_map.png"} < names
        text = archive.read("ship-explained/explanations.json").decode()
        page = archive.read("ship-explained/index.html").decode()
    [record] = json.loads(text)
    assert (record["path"], record["folder"]) == ("ship.jpg", "ship")
    assert "/tmp" not in text + page


def test_two_models_share_a_page(ship: Classified, tmp_path: Path) -> None:
    other = replace(ship, model="runs/mine")
    file = write_zip([ship, other], tmp_path, write_explanations)
    with ZipFile(file) as archive:
        folders = {name.split("/")[1] for name in archive.namelist() if name.count("/") == 2}
    assert folders == {"ship by cifar10_nano_kmeans", "ship by mine"}


def test_zips_of_the_same_name_stand_side_by_side(ship: Classified, tmp_path: Path) -> None:
    both = [
        replace(ship, explanation=replace(ship.explanation, explained=guess, stages=()))
        for guess in ship.explanation.top[:2]
    ]
    first, second = (write_zip([one], tmp_path, write_explanations) for one in both)
    assert first.name == second.name
    told = []
    for file in (first, second):
        with ZipFile(file) as archive:
            told.append(json.loads(archive.read("ship-explained/explanations.json")))
    assert told[0][0]["explained"] != told[1][0]["explained"]


@pytest.mark.parametrize("stem", [246 * "a", 60 * "\N{SHIP}"])
def test_long_names_are_shortened(ship: Classified, tmp_path: Path, stem: str) -> None:
    explanation = replace(ship.explanation, path=Path(f"{stem}.jpg"), stages=())
    long = replace(ship, explanation=explanation)
    file = write_zip([long, replace(long, model=f"runs/{stem}")], tmp_path, write_explanations)
    assert len(file.name.encode()) < 120
    with ZipFile(file) as archive:
        assert archive.testzip() is None
        assert (
            max(len(part.encode()) for name in archive.namelist() for part in name.split("/")) < 240
        )


def test_a_failed_write_is_reported_in_one_line(ship: Classified, tmp_path: Path) -> None:
    def write(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for folder, writer, told in (
        (tmp_path / "missing", write_explanations, "No such file"),
        (tmp_path, write, "No space left"),
    ):
        with pytest.raises(PacavitError, match=f"cannot write ship-explained.zip: {told}"):
            write_zip([ship], folder, writer)


def test_names_that_are_not_utf8_are_escaped(ship: Classified, tmp_path: Path) -> None:
    explanation = replace(ship.explanation, path=Path(os.fsdecode(b"caf\xe9.jpg")), stages=())
    named = replace(ship, explanation=explanation)
    file = write_zip([named, replace(named, model="runs/mine")], tmp_path, write_explanations)
    assert file.name == "caf%xe9-explained.zip"
    with ZipFile(file) as archive:
        page = archive.read("caf%xe9-explained/index.html").decode()
        folders = {name.split("/")[1] for name in archive.namelist() if name.count("/") == 2}
    assert r"caf\xe9.jpg" in page
    assert folders == {"caf%xe9 by cifar10_nano_kmeans", "caf%xe9 by mine"}
