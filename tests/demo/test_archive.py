"""The zip that visitors download."""

import json
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

from pacavit.demo.archive import write_zip
from pacavit.demo.explaining import Explained
from pacavit.report.explanation import write_explanations


def test_the_zip_holds_the_page_and_no_temporary_names(ship: Explained, tmp_path: Path) -> None:
    file = write_zip([ship], tmp_path / "ship-explained.zip", write_explanations)
    with ZipFile(file) as archive:
        names = set(archive.namelist())
        assert {"ship-explained/index.html", "ship-explained/ship/class_map.png"} < names
        text = archive.read("ship-explained/explanations.json").decode()
        page = archive.read("ship-explained/index.html").decode()
    [record] = json.loads(text)
    assert (record["path"], record["folder"]) == ("ship.jpg", "ship")
    assert "/tmp" not in text + page


def test_two_models_share_a_page(ship: Explained, tmp_path: Path) -> None:
    other = replace(ship, model="runs/mine")
    file = write_zip([ship, other], tmp_path / "both.zip", write_explanations)
    with ZipFile(file) as archive:
        folders = {name.split("/")[1] for name in archive.namelist() if name.count("/") == 2}
    assert folders == {"ship by cifar10_nano_kmeans", "ship by mine"}
