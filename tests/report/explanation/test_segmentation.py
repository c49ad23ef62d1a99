"""The folder of explained segmentations: pictures, JSON, a page that works offline, the console."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from pacavit import api
from pacavit.report.explanation.page import NUMBERS, PAGE, ExplainedImage

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Explained = tuple[Path, list[ExplainedImage]]


@pytest.fixture(scope="module")
def explained(
    segmenter: Path, noise_image: Path, tmp_path_factory: pytest.TempPathFactory
) -> Explained:
    """Two images and a broken one; tests must not change the folder."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "a.png").write_bytes(noise_image.read_bytes())
    with Image.open(noise_image) as opened:
        opened.resize((90, 40)).save(folder / "<img src=x onerror=alert(1)>.png")
    (folder / "c.png").write_text("none")
    out = tmp_path_factory.mktemp("out") / "why"
    return out, api.explain(segmenter, sorted(folder.iterdir()), out)


def data_of(out: Path) -> Any:
    page = (out / PAGE).read_text()
    return json.loads(page.partition('id="explorer-data">')[2].partition("</script>")[0])


def test_every_picture_is_there(explained: Explained) -> None:
    _, images = explained
    assert [image.error is None for image in images] == [True, True, False]
    folder = images[1].folder
    assert folder is not None
    names = {file.name for file in folder.iterdir()}
    assert {"overlay.jpg", "attention.png", "clusters.png", "clusters-alone.png"} < names
    regions = sorted(name for name in names if name.startswith("region-"))
    assert [name.split("-")[1] for name in regions] == ["1", "2", "3"]
    assert {name.partition("-")[2].partition("-")[2] for name in regions} == {
        "sky.png",
        "road.png",
        "a-b-car.png",
    }
    with Image.open(folder / regions[0]) as picture:
        assert picture.size == (320, 240)


def test_numbers_are_json(explained: Explained) -> None:
    out, _ = explained
    _, record, broken = json.loads((out / NUMBERS).read_text())
    assert sum(each["area"] for each in record["classes"]) == pytest.approx(1, abs=1e-5)
    assert [each["class"] for each in record["classes"]] == [
        each["class"] for each in record["regions"]
    ]
    assert all(each["agreement"] == 1 for each in record["regions"])
    assert 0 <= record["clusters"]["agreement"] <= 1
    for attention in record["clusters"]["attention"].values():
        assert list(attention) == ["sky", "road", "a <b>/car"]
        assert sum(attention.values()) == pytest.approx(1, abs=1e-4)
    assert (record["method"], record["stages"]) == ("cluster_contributions", [0, 1])
    assert "not measured on segmentation" in record["note"]
    assert "not an image" in broken["error"]


def test_the_page_asks_nobody_and_believes_no_name(explained: Explained) -> None:
    page = (explained[0] / PAGE).read_text()
    assert "://" not in page
    assert "default-src 'none'" in page
    assert "<img src=x" not in page
    assert "a <b>" not in page.partition("explorer-data")[0]
    assert "Images that could not be explained" in page
    assert "one cluster per class" in page


def test_the_data_of_the_page_are_those_of_its_cells(explained: Explained) -> None:
    data = data_of(explained[0])
    assert data["names"] == ["sky", "road", "a <b>/car"]
    wide, image = data["images"]
    assert (image["size"], image["grid"], image["kept"]) == ([60, 80], [60, 80], 3)
    assert wide["grid"] == [40, 90]
    cells = 60 * 80
    for name in ("classBytes", "probabilityBytes"):
        assert len(image[name]) == 4 * cells  # three bytes are four characters of base64
    assert len(image["regions"]) == 3
    assert image["regions"][0]["title"].startswith("Why is this ")
    assert len(image["clusters"]["attentionBytes"]) == 4 * cells
    assert image["clusters"]["size"] == [30, 40]


def test_the_console_names_the_largest_classes(
    explained: Explained, segmenter: Path, noise_image: Path, tmp_path: Path
) -> None:
    _, images = explained
    first = images[1].numbers["classes"][0]
    assert images[1].line.startswith(f"{first['class']} {first['area']:.1%}, ")
    [image] = api.explain(segmenter, noise_image, tmp_path / "out", label="sky", region=(3, 4))
    [region] = image.numbers["regions"]
    assert region["class"] == "sky"


@pytest.mark.browser
def test_a_click_shows_the_class_of_a_pixel_and_its_clusters(
    browser: "Browser", explained: Explained
) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 900})
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.goto(f"file://{explained[0] / PAGE}#image-2")
    page.wait_for_function("document.getElementById('explorer-title').textContent[0] == 'a'")
    canvas, pixel = page.locator("#explorer-canvas"), page.locator("#explorer-patch")
    box = canvas.bounding_box()
    assert box is not None
    canvas.click(position={"x": 0.5 * box["width"] + 1, "y": 0.25 * box["height"] + 1})
    assert pixel.inner_text().startswith("Pixel 40,15: ")
    assert page.locator("#explorer-hover").inner_text().startswith("Under the cursor: ")
    canvas.press("ArrowDown")
    assert pixel.inner_text().startswith("Pixel 40,16: ")
    likely = page.locator("#explorer-classes li").all_inner_texts()
    assert 1 <= len(likely) <= 3
    assert pixel.inner_text().endswith(likely[0].rpartition(" ")[0].rpartition(" ")[0].strip())
    assert page.locator("#explorer-clusters li").count() >= 1
    for view in ("region-0", "alone", "cluster-2", "classes"):
        page.select_option("#explorer-view", view)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert problems == []
    page.close()
