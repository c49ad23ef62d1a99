"""Results that lead to files, and results on other data, which leave a run's own alone."""

import csv
import json
import re
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
    assert "all images" in " ".join(out.split())
    assert "the model was trained on some of them" in err


def test_all_images_ignore_sizes_of_splits_that_do_not_fit(tmp_path: Path) -> None:
    data, few = write_images(tmp_path / "data", NUM, seed=0), write_images(tmp_path / "few", 2, 1)
    settings = ["train.epochs=1", "train.batch_size=8", "data.options.test_size=8"]
    run = api.train("folder_nano", tmp_path / "run", data=data, set=[*settings, "data.val_size=8"])
    with pytest.raises(DataError, match="cannot hold out"):
        api.evaluate(run, data=few)
    assert api.evaluate(run, data=few, all_images=True).num_images == 4


@pytest.fixture(scope="module")
def sized_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on bare class folders with given sizes of the splits."""
    base = tmp_path_factory.mktemp("sized")
    data = write_images(base / "data", NUM, seed=0)
    settings = ["train.epochs=1", "train.batch_size=8", "data.options.image_size=32"]
    settings += ["task.image_size=32", "data.val_size=4", "data.options.test_size=6"]
    return api.train("folder_nano", base / "run", data=data, set=settings)


@pytest.mark.parametrize(
    ("folders", "num", "numbers"),
    [
        (["test"], 5, {"test": 10}),
        (["train", "test"], 5, {"test": 10, "val": 4, "train": 6}),
        (["train", "val", "test"], 5, {"test": 10, "val": 10, "train": 10}),
        (["train"], NUM, {"test": 6, "val": 4}),
        ([""], NUM, {"test": 6, "val": 4}),
    ],
)
def test_folders_of_every_layout_can_be_evaluated(
    sized_run: Path, tmp_path: Path, folders: list[str], num: int, numbers: dict[str, int]
) -> None:
    other = tmp_path / "other"
    for seed, name in enumerate(folders):
        write_images(other / name, num, seed=seed)
    for split, number in numbers.items():
        out = tmp_path / split
        assert api.evaluate(sized_run, data=other, split=split, out=out).num_images == number
    models = [sized_run, sized_run]
    assert api.evaluate(models, data=other, out=tmp_path / "together").num_images == numbers["test"]


def test_predictions_name_the_files(folder_run: Path) -> None:
    with (folder_run / "evaluation-test" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        assert (folder_run.parent / "data" / row["image"]).is_file()
        assert Path(row["image"]).parent.name == row["true_class"]


def test_packed_images_are_named_by_position(digits_run: Path) -> None:
    with (digits_run / "evaluation-val" / "predictions.csv").open(newline="") as file:
        names = [row["image"] for row in csv.DictReader(file)]
    assert names == [f"digits #{position}" for position in range(180)]


@pytest.fixture
def mistaken(tmp_path: Path) -> Path:
    """A folder with dark images among the bright ones."""
    root = write_images(tmp_path / "mistaken", 5, seed=3)
    for number in range(3):
        (root / "dark" / f"{number}.png").rename(root / "bright" / f"odd-{number}.png")
    return root


def test_mistakes_lead_to_the_image_and_to_its_explanation(run: Path, mistaken: Path) -> None:
    folder = api.evaluate(run, data=mistaken, all_images=True).folder
    assert folder is not None
    with (folder / "predictions.csv").open(newline="") as file:
        wrong = [row for row in csv.DictReader(file) if row["true_class"] != row["predicted_class"]]
    wrong.sort(key=lambda row: -float(row["predicted_class_probability"]))
    assert [row["image"] for row in wrong] != []
    assert {row["image"] for row in wrong} >= {f"bright/odd-{number}.png" for number in range(3)}
    page = (folder / "results.html").read_text()
    assert str(mistaken.parent) not in page
    for number, row in enumerate(wrong, 1):
        assert f'<a class="soft" href="mistake-0{number}.png">{row["image"]}</a>' in page
        assert f'href="mistakes.html#image-{number}">explanation' in page
        copied = (folder / f"mistake-0{number}.png").read_bytes()
        assert copied == (mistaken / row["image"]).read_bytes()
    # The most frequent confusion names its most probable mistake.
    assert f'href="mistakes.html#image-1">{wrong[0]["image"]}</a>' in page
    mistakes = (folder / "mistakes.html").read_text()
    assert mistakes.count("data-image=") == len(wrong)
    assert "true class bright" in mistakes


def test_links_of_the_report_lead_to_files(run: Path, mistaken: Path) -> None:
    folder = api.evaluate(run, data=mistaken, all_images=True).folder
    assert folder is not None
    for page in (run / "report.html", folder / "results.html"):
        links = re.findall(r'href="([^#"][^"]*)"', page.read_text())
        assert links
        for link in links:
            assert (page.parent / link.partition("#")[0]).is_file(), link


def test_measuring_again_leaves_no_old_mistakes(run: Path, mistaken: Path) -> None:
    folder = api.evaluate(run, data=mistaken, all_images=True).folder
    assert folder is not None
    (folder / "mistake-99.jpg").write_bytes(b"old")
    (folder / "mistake.txt").write_text("not ours")
    api.evaluate(run, data=mistaken, all_images=True)
    assert not (folder / "mistake-99.jpg").exists()
    assert (folder / "mistake.txt").exists()
