"""Results on other data: where they go, and that a run's own results stay."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pacavit import api
from pacavit.errors import DataError, PacavitError
from pacavit_cli.main import main

NUM = 12  # images per class


def write_images(root: Path, num: int, seed: int) -> Path:
    """Dark and bright noise of 16 x 16 pixels, a class folder each."""
    random = np.random.default_rng(seed)
    for label, name in enumerate(("bright", "dark")):
        (root / name).mkdir(parents=True)
        for number in range(num):
            pixels = random.integers(0, 100, (16, 16, 3)) + 150 * (1 - label)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the folder ``data`` beside it, with test results; tests must not change it."""
    base = tmp_path_factory.mktemp("folder")
    data = write_images(base / "data", NUM, seed=0)
    settings = ["train.epochs=1", "train.batch_size=8", "data.options.image_size=32"]
    settings += ["task.image_size=32"]
    run = api.train("folder_nano", base / "run", data=data, set=settings)
    api.evaluate(run)
    return run


@pytest.fixture
def run(folder_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder_run, tmp_path / "run")


def own_results(run: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in (run / "evaluation-test").iterdir()}


def highlights(run: Path) -> str:
    text = (run / "report.html").read_text()
    return text.partition('<dl class="highlights">')[2].partition("</dl>")[0]


def test_other_data_leave_the_results_and_the_headline_alone(run: Path, tmp_path: Path) -> None:
    before, headline = own_results(run), highlights(run)
    other = tmp_path / "my phone"
    write_images(other / "test", 10, seed=1)
    evaluation = api.evaluate(run, data=other)
    assert evaluation.folder == run / "other-data" / "my_phone-test"
    assert evaluation.num_images == 20
    assert own_results(run) == before
    assert highlights(run) == headline
    text = (run / "report.html").read_text()
    assert "Scores on data other than the run&#39;s own" in text
    assert 'href="other-data/my_phone-test/results.html"' in text
    page = (evaluation.folder / "results.html").read_text()
    assert "Confusion matrix" in page
    record = json.loads((evaluation.folder / "evaluation.json").read_text())
    assert (record["split"], record["num_images"]) == ("test", 20)


def test_folders_of_one_name_keep_their_results_apart(run: Path, tmp_path: Path) -> None:
    folders = [write_images(tmp_path / name / "phone", 10, seed=2) for name in "ab"]
    (folders[1] / "dark" / "0.png").rename(folders[1] / "dark" / "first.png")
    names = ["phone-all", "phone-all-2", "phone-all"]
    for data, name in zip((*folders, folders[0]), names, strict=True):
        evaluation = api.evaluate(run, data=data, all_images=True)
        assert evaluation.folder == run / "other-data" / name
        assert evaluation.num_images == 20
    assert len(list((run / "other-data").iterdir())) == 2


def test_all_images_of_the_own_folder_are_no_test_result(run: Path) -> None:
    before, headline = own_results(run), highlights(run)
    evaluation = api.evaluate(run, all_images=True)
    assert evaluation.folder == run / "other-data" / "data-all"
    assert evaluation.num_images == 2 * NUM
    assert [row.support for row in evaluation.per_class] == [NUM, NUM]
    assert (own_results(run), highlights(run)) == (before, headline)


def test_the_own_data_elsewhere_are_the_own_data(
    folder_run: Path, run: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(folder_run.parent / "data", tmp_path / "moved")
    stored = (run / "evaluation-test" / "evaluation.json").read_text()
    evaluation = api.evaluate(run, data=moved)
    assert evaluation.folder == run / "evaluation-test"
    assert evaluation.to_dict()["scores"] == json.loads(stored)["scores"]
    assert not (run / "other-data").exists()


def test_results_of_other_weights_are_not_listed(run: Path) -> None:
    api.evaluate(run, all_images=True)
    record = run / "other-data" / "data-all" / "evaluation.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"weights_sha256": "other"}))
    api.evaluate(run)
    assert "Other data" not in (run / "report.html").read_text()


def test_a_folder_of_ones_own_gets_a_page_too(run: Path, tmp_path: Path) -> None:
    evaluation = api.evaluate(run, out=tmp_path / "out")
    assert evaluation.folder == tmp_path / "out"
    assert "Confusion matrix" in (tmp_path / "out" / "results.html").read_text()


def test_all_images_need_a_folder_of_images_and_no_split(run: Path, digits_run: Path) -> None:
    with pytest.raises(DataError, match=r"'digits' has splits of its own"):
        api.evaluate(digits_run, all_images=True)
    with pytest.raises(PacavitError, match=r"all images and the split 'val' exclude each other"):
        api.evaluate(run, split="val", all_images=True)
    assert not (digits_run / "other-data").exists()


def test_the_command_names_the_folder_of_its_results(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run), "--all"]) == 0
    out, err = capsys.readouterr()
    assert f"wrote {run / 'other-data' / 'data-all' / 'results.html'}" in out
    assert "all images" in out
    assert "the model was trained on some of them" in err


def test_all_images_ignore_sizes_of_splits_that_do_not_fit(tmp_path: Path) -> None:
    data, few = write_images(tmp_path / "data", NUM, seed=0), write_images(tmp_path / "few", 2, 1)
    settings = ["train.epochs=1", "train.batch_size=8", "data.options.test_size=8"]
    run = api.train("folder_nano", tmp_path / "run", data=data, set=[*settings, "data.val_size=8"])
    with pytest.raises(DataError, match="cannot hold out"):
        api.evaluate(run, data=few)
    assert api.evaluate(run, data=few, all_images=True).num_images == 4
