"""The folder of explanations: pictures, JSON, a page that works offline, and who may write it."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import pytest
import timm
import torch
from matplotlib.figure import Figure
from PIL import Image

from pacavit import api
from pacavit.engine.weights.load import load_model
from pacavit.errors import PacavitError
from pacavit.explain import explain_images, render
from pacavit.report.explanation import classification
from pacavit.report.explanation import pictures as explanation_pictures
from pacavit.report.explanation.page import (
    NUMBERS,
    PAGE,
    ExplainedImage,
    print_explanations,
    write_explanations,
)
from pacavit.report.explanation.pictures import BORDER

if TYPE_CHECKING:
    from playwright.sync_api import Browser

MODEL = "cifar10_nano_conv"
AWKWARD = "<img src=x onerror=alert(1)>$_.png"


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[ExplainedImage]]:
    """Three images, one of them broken, one with an awkward name; tests must not change it."""
    folder = tmp_path_factory.mktemp("images")
    generator = torch.Generator().manual_seed(0)
    for name, size in ((AWKWARD, (40, 64, 3)), ("b.png", (32, 32, 3))):
        pixels = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / name)
    (folder / "c.png").write_text("none")
    out = tmp_path_factory.mktemp("out") / "why"
    return out, api.explain(MODEL, folder, out, label="cat")


def test_every_picture_is_there(explained: tuple[Path, list[ExplainedImage]]) -> None:
    _, images = explained
    assert [image.error is None for image in images] == [True, True, False]
    for image in images[:2]:
        assert image.folder is not None
        names = {file.name for file in image.folder.iterdir()}
        assert {
            "cluster_contributions.png",
            "class_map.png",
            "attention_map.png",
            "keep-otsu.png",
            "mask-mass.png",
            "mask-quantile-attention_map.png",
            "keep-otsu-class_map.png",
            "remove-mass-attention_map.png",
        } < names
        for kind in ("mask", "keep", "remove"):
            start = f"{kind}-otsu-stage1-cluster"
            assert len([name for name in names if name.startswith(start)]) == 1
        assert {"clusters-stage0.png", "clusters-stage1.png"} < names
    first = images[0].folder
    assert first is not None
    for kind in ("mask", "keep", "remove"):
        with Image.open(first / f"{kind}-quantile.png") as picture:
            assert picture.size == (64, 40)
    mask, kept, removed = (
        np.asarray(Image.open(first / f"{kind}-mass-class_map.png"))
        for kind in ("mask", "keep", "remove")
    )
    whole = np.asarray(Image.open(images[0].path))
    assert mask.any()
    assert (kept == np.where(mask[..., None], whole, 128)).all()
    assert (removed == np.where(mask[..., None], 128, whole)).all()


def test_numbers_are_json(explained: tuple[Path, list[ExplainedImage]]) -> None:
    out, _ = explained
    records = json.loads((out / NUMBERS).read_text())
    assert records[0]["explained"]["class"] == "cat"
    assert len(records[0]["top"]) == 5
    assert records[0]["seen"] == {"top": 0, "left": 12, "height": 40, "width": 40}
    assert records[0]["mask_area"]["cluster_contributions"]["quantile"] == pytest.approx(
        0.25, abs=0.01
    )
    for stage, grid in zip(records[0]["stages"], ([16, 16], [8, 8]), strict=True):
        assert stage["grid"] == grid
        assert sum(stage["importance"]) == pytest.approx(1, abs=1e-3)
        assert sum(stage["received"]) == pytest.approx(1, abs=1e-3)
        assert sum(stage["patches"]) == grid[0] * grid[1]
    assert "not an image" in records[2]["error"]


def test_the_page_asks_nobody_and_believes_no_name(
    explained: tuple[Path, list[ExplainedImage]],
) -> None:
    page = (explained[0] / PAGE).read_text()
    assert "://" not in page
    assert "default-src 'none'" in page
    assert "<img src=x" not in page
    assert "Images that could not be explained" in page


def test_the_page_links_every_mask_and_mentions_the_border(
    explained: tuple[Path, list[ExplainedImage]],
) -> None:
    out, images = explained
    page = (out / PAGE).read_text()
    links = [unquote(link) for link in re.findall(r'<a href="([^"#]+)"', page)]
    assert {out / link for link in links} == {
        file
        for image in images
        if image.folder is not None
        for file in image.folder.iterdir()
        if file.name.startswith(("mask-", "keep-", "remove-"))
    }
    # Of the two images only the first is not square.
    assert page.count(f"<p>{BORDER}</p>") == 1
    assert [one["border"] for one in json.loads(page_data(page))["images"]] == [True, False]


def page_data(page: str) -> str:
    return page.partition('id="explorer-data">')[2].partition("</script>")[0]


def test_existing_folders_are_not_changed(
    explained: tuple[Path, list[ExplainedImage]], tmp_path: Path
) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (32, 32)).save(image)
    with pytest.raises(PacavitError, match="holds explanations; give --overwrite"):
        api.explain(MODEL, image, explained[0])
    with pytest.raises(PacavitError, match="is a file; choose another folder"):
        api.explain(MODEL, image, image)
    with pytest.raises(PacavitError, match="holds other files than explanations"):
        api.explain(MODEL, image, tmp_path, overwrite=True)
    assert image.exists()
    out = tmp_path / "out"
    api.explain(MODEL, [image, image], out, method="edges")
    assert {entry.name for entry in out.iterdir()} == {"a", "a-2", PAGE, NUMBERS}
    api.explain(MODEL, image, out, overwrite=True)
    assert {entry.name for entry in out.iterdir()} == {"a", PAGE, NUMBERS}


def test_images_may_have_the_names_of_the_page_and_the_json_file(tmp_path: Path) -> None:
    for name in (PAGE, NUMBERS):
        Image.new("RGB", (32, 32)).save(tmp_path / f"{name}.png")
    out = tmp_path / "out"
    api.explain(MODEL, [tmp_path / f"{name}.png" for name in (PAGE, NUMBERS)], out, method="edges")
    folders = {f"{PAGE}-2", f"{NUMBERS}-2"}
    assert {entry.name for entry in out.iterdir()} == {*folders, PAGE, NUMBERS}
    assert {Path(one["folder"]).name for one in json.loads((out / NUMBERS).read_text())} == folders


def test_interrupted_explanations_can_be_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (32, 32)).save(image)
    out = tmp_path / "out"

    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(classification, "_numbers", interrupt)
        with pytest.raises(KeyboardInterrupt):
            api.explain(MODEL, image, out, method="edges")
    assert json.loads((out / NUMBERS).read_text()) == []
    api.explain(MODEL, image, out, method="edges", overwrite=True)
    assert {entry.name for entry in out.iterdir()} == {"a", PAGE, NUMBERS}


def test_the_lead_is_about_the_first_map(
    explained: tuple[Path, list[ExplainedImage]], run: Path, tmp_path: Path
) -> None:
    assert "which areas contribute to the score of the class" in (explained[0] / PAGE).read_text()
    image = tmp_path / "a.png"
    Image.new("RGB", (32, 32)).save(image)

    def page(method: str) -> str:
        api.explain(MODEL, image, tmp_path / method, method=method)
        return (tmp_path / method / PAGE).read_text()

    assert (
        "attends to clusters of patches. The map shows the clusters that increase the score"
        in page("class_map")
    )
    assert "receive attention, bright ones most; it does not depend on the class" in page(
        "attention_map"
    )
    edges = page("edges")
    assert "The first map is by edges. Control: the strength of edges" in edges
    assert "Beside it are the clusters of patches." in edges
    assert "the score of the class" not in edges

    model = load_model(run)
    network = timm.create_model("pacavit_nano", num_classes=10, num_clusters=0)
    plain = replace(model, task=type(model.classifier)(network, model.classifier.config, 10))
    found = explain_images(plain, [image], device=torch.device("cpu"))
    write_explanations(found, tmp_path / "plain", title="plain")
    text = (tmp_path / "plain" / PAGE).read_text().partition("<script")[0]
    assert "The first map is by relevance. Gradient-weighted relevance" in text
    assert "cluster" not in text.partition("<body")[2].lower().replace("explorer-clusters", "")


def test_pictures_and_numbers_say_which_stages_the_map_is_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (32, 32)).save(image)
    notes: list[str] = []

    def overlay(*arguments: Any) -> Figure:
        notes.append(arguments[2])
        return render.overlay(*arguments)

    monkeypatch.setattr(explanation_pictures, "overlay", overlay)
    for method, stage, told, stages in (
        ("cluster_contributions", None, "cluster contributions, stages 0 and 1", [0, 1]),
        ("cluster_contributions", 0, "cluster contributions, stage 0", [0]),
        ("class_map", None, "class map, stage 1", [1]),
        ("relevance", None, "relevance", []),
    ):
        out = tmp_path / f"{method}-{stage}"
        notes.clear()
        api.explain(MODEL, image, out, method=method, stage=stage)
        beside = [name for name in ("class_map", "attention_map") if name != method]
        of = 1 if stage is None else stage
        assert notes == [told, *(f"{name.replace('_', ' ')}, stage {of}" for name in beside)]
        [record] = json.loads((out / NUMBERS).read_text())
        assert record["method"] == method
        assert record["maps"] == [
            {"method": method, "stages": stages},
            *({"method": name, "stages": [of]} for name in beside),
        ]
        assert list(record["mask_area"]) == [method, *beside]
        page = (out / PAGE).read_text()
        assert [one["name"] for one in json.loads(page_data(page))["images"][0]["maps"]] == [
            method,
            *beside,
        ]


def test_nothing_is_written_for_wrong_arguments(tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (32, 32)).save(image)
    for options, told in (
        ({"label": 10}, "out of range: cifar10 has the classes 0 to 9"),
        ({"label": "horze"}, "did you mean 'horse'"),
        ({"method": "gradcam"}, "did you mean 'grad_cam'"),
        ({"stage": 2}, "stage 2 has no clusters; choose among: 0, 1"),
    ):
        with pytest.raises(PacavitError, match=told):
            api.explain(MODEL, image, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_console_names_image_class_and_page(
    explained: tuple[Path, list[ExplainedImage]], capsys: pytest.CaptureFixture[str]
) -> None:
    out, images = explained
    print_explanations(images, out)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "b.png: cat " in lines[1]
    assert lines[2] == f"page in {out / PAGE}"


@pytest.mark.browser
def test_a_click_shows_what_the_patch_attends_to(
    browser: "Browser", explained: tuple[Path, list[ExplainedImage]]
) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 900})
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.goto(f"file://{explained[0] / PAGE}")
    canvas, patch = page.locator("#explorer-canvas"), page.locator("#explorer-patch")
    page.locator("[data-image='1']").click()
    page.wait_for_function("document.getElementById('explorer-title').textContent[0] == 'b'")
    assert page.locator("#explorer-border").is_hidden()
    box = canvas.bounding_box()
    assert box is not None
    canvas.click(position={"x": 0.3 * box["width"], "y": 0.8 * box["height"]})
    assert patch.inner_text() == "Patch in row 7, column 3 attends to"
    canvas.press("ArrowUp")
    assert patch.inner_text() == "Patch in row 6, column 3 attends to"
    assert page.locator("#explorer-clusters li").count() == 12
    page.select_option("#explorer-stage", label="0")
    for view in ("attention_map", "partition", "patch"):
        page.select_option("#explorer-view", view)
    page.locator("[data-image='0']").click()  # not square: the left of it was not seen
    page.wait_for_function("document.getElementById('explorer-title').textContent[0] == '<'")
    assert page.locator("#explorer-border").is_visible()
    canvas.click(position={"x": 2, "y": 2})
    assert patch.inner_text() == "Patch in row 1, column 1 attends to"
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert problems == []
    page.close()
