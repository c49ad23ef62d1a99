"""The folder of explained objects: pictures, JSON, a page that works offline, the console."""

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from pacavit import api
from pacavit.report.explanation.detection import DetectionPages
from pacavit.report.explanation.page import NUMBERS, PAGE, ExplainedImage

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Explained = tuple[Path, list[ExplainedImage]]


@pytest.fixture(scope="module")
def explained(
    detector: Path, noise_image: Path, tmp_path_factory: pytest.TempPathFactory
) -> Explained:
    """An image with objects, one without, and a broken one; tests must not change the folder."""
    folder = tmp_path_factory.mktemp("images")
    Image.new("RGB", (90, 40), (128, 128, 128)).save(folder / "<img src=x onerror=alert(1)>.png")
    (folder / "a.png").write_bytes(noise_image.read_bytes())
    (folder / "c.png").write_text("none")
    out = tmp_path_factory.mktemp("out") / "why"
    return out, api.explain(detector, sorted(folder.iterdir()), out)


def data_of(out: Path) -> Any:
    page = (out / PAGE).read_text()
    return json.loads(page.partition('id="explorer-data">')[2].partition("</script>")[0])


def test_every_picture_is_there(explained: Explained) -> None:
    _, images = explained
    assert [image.error is None for image in images] == [True, True, False]
    plain, folder = images[0].folder, images[1].folder
    assert plain is not None
    assert folder is not None
    assert {file.name for file in plain.iterdir()} == {"objects.jpg", "clusters.png"}
    names = {file.name for file in folder.iterdir()}
    assert {"objects.jpg", "clusters.png"} < names
    boxes = sorted(name for name in names if name.startswith("box-"))
    assert [name.split("-")[1] for name in boxes] == [str(k + 1) for k in range(len(boxes))]
    assert {name.split("-", 2)[2] for name in boxes} == {"disc.png", "a-b-car.png"}
    with Image.open(folder / boxes[0]) as picture:
        assert picture.size == (320, 240)


def test_numbers_are_json(explained: Explained) -> None:
    plain, record, broken = json.loads((explained[0] / NUMBERS).read_text())
    assert (plain["objects"], plain["highest_score"], plain["boxes"]) == (0, None, [])
    assert record["objects"] == len(record["boxes"]) >= 2
    scores = [each["score"] for each in record["boxes"]]
    assert scores == sorted(scores, reverse=True)
    assert min(scores) >= 0.3
    assert record["highest_score"] == scores[0]
    for each in record["boxes"]:
        assert each["class"] in ("disc", "a <b>/car")
        x1, y1, x2, y2 = each["box"]
        assert 0 <= x1 < x2 <= 80
        assert 0 <= y1 < y2 <= 60
        assert isinstance(each["logit"], float)
    assert list(record["clusters"]["area"])[:2] == ["background", "border"]
    assert sum(record["clusters"]["area"].values()) == pytest.approx(1, abs=1e-5)
    assert 0 <= record["clusters"]["agreement"] <= 1
    assert (record["method"], record["stages"]) == ("cluster_contributions", [0, 1])
    assert "not an image" in broken["error"]


def test_the_page_asks_nobody_and_believes_no_name(explained: Explained) -> None:
    page = (explained[0] / PAGE).read_text()
    assert "://" not in page
    assert "default-src 'none'" in page
    assert "<img src=x" not in page
    assert "a <b>" not in page.partition("explorer-data")[0]
    assert "Images that could not be explained" in page
    assert "clusters for the background, the borders and the interiors of objects" in page
    assert "no object with a score of at least 0.3" in page


def test_the_data_of_the_page_are_those_of_the_objects(explained: Explained) -> None:
    plain, image = data_of(explained[0])["images"]
    assert (plain["objects"], plain["legend"]) == ([], [])
    _, record, _ = json.loads((explained[0] / NUMBERS).read_text())
    assert len(image["objects"]) == len(record["boxes"])
    assert {name for name, _ in image["legend"]} == {"disc", "a <b>/car"}
    for each, box in zip(image["objects"], record["boxes"], strict=True):
        x1, y1, x2, y2 = box["box"]
        expected = [y1 / 60, x1 / 80, (y2 - y1) / 60, (x2 - x1) / 80]
        assert each["box"] == pytest.approx(expected, abs=1e-3)
        assert each["title"] == f"Why is this {box['class']}?"
        assert each["map"]["size"] == [60, 80]
        assert max(base64.b64decode(each["map"]["bytes"])) == 255
        inside = base64.b64decode(each["mask"]["bytes"])
        assert len(inside) == each["mask"]["size"][0] * each["mask"]["size"][1]
        assert set(inside) == {0, 1}
    assert image["clusters"]["size"] == [30, 40]
    assert len(image["clusters"]["names"]) == 4


def test_what_is_not_explained_is_on_the_page_without_a_map(
    detector: Path, noise_image: Path, tmp_path: Path, explained: Explained
) -> None:
    first, *others = explained[1][1].numbers["boxes"]
    x1, y1, x2, y2 = first["box"]
    [image] = api.explain(detector, noise_image, tmp_path / "out", box=(x1, y1, x2, y2))
    assert image.line == f"{first['class']} {first['score']:.2f}"
    [data] = data_of(tmp_path / "out")["images"]
    assert [each["map"] is None for each in data["objects"]] == [False, *[True] * len(others)]
    [asked] = api.explain(detector, noise_image, tmp_path / "box", label="disc", box=(1, 2, 9, 9))
    [box] = asked.numbers["boxes"]
    assert (box["class"], box["score"]) == ("disc", None)
    assert asked.line == f"disc logit {box['logit']:.2f}"
    assert data_of(tmp_path / "box")["images"][0]["objects"][0]["name"] == "disc?"


def test_scores_that_are_too_low_are_told() -> None:
    pages = DetectionPages()
    told = pages.line({"boxes": [], "highest_score": 0.2114})
    assert told == "no object with a score of at least 0.3; the highest is 0.211"
    assert pages.line({"boxes": [], "highest_score": None}) == (
        "no object with a score of at least 0.3"
    )


def test_the_lead_says_what_a_map_is() -> None:
    pages = DetectionPages()
    for method, told in (
        ("grad_cam", "contribute to the score of its class in its box"),
        ("d_rise", "have to be visible for it to be found"),
        ("rollout", "do not depend on the object"),
    ):
        lead = pages.lead({"method": method, "clusters": None})
        assert told in lead
        assert "clusters" not in lead


@pytest.mark.browser
def test_a_click_shows_why_an_object_was_found(browser: "Browser", explained: Explained) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 900})
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.goto(f"file://{explained[0] / PAGE}#image-2")
    page.wait_for_function("document.getElementById('explorer-title').textContent[0] == 'a'")
    canvas, facts = page.locator("#explorer-canvas"), page.locator("#explorer-facts")
    boxes = explained[1][1].numbers["boxes"]
    buttons = page.locator("#explorer-objects button")
    buttons.first.wait_for()
    assert buttons.count() == len(boxes)
    assert f"{boxes[0]['score']:.3f}" in facts.inner_text()
    size = canvas.bounding_box()
    assert size is not None
    smallest = min(
        range(len(boxes)),
        key=lambda k: (
            (boxes[k]["box"][2] - boxes[k]["box"][0]) * (boxes[k]["box"][3] - boxes[k]["box"][1])
        ),
    )
    x1, y1, x2, y2 = boxes[smallest]["box"]
    at = {"x": (x1 + x2) / 160 * size["width"], "y": (y1 + y2) / 120 * size["height"]}
    canvas.click(position={"x": at["x"], "y": at["y"]})
    assert f"{boxes[smallest]['score']:.3f}" in facts.inner_text()
    assert buttons.nth(smallest).get_attribute("aria-pressed") == "true"
    assert page.locator("#explorer-hover").inner_text().startswith("Under the cursor: ")
    for _ in boxes:
        canvas.press("ArrowLeft")
    assert f"{boxes[0]['score']:.3f}" in facts.inner_text()
    canvas.press("ArrowDown")
    assert f"{boxes[1]['score']:.3f}" in facts.inner_text()
    buttons.nth(0).focus()
    page.keyboard.press("Enter")
    assert page.locator("#explorer-patch").inner_text() == f"Why is this {boxes[0]['class']}?"
    for view in ("objects", "cluster-2", "map"):
        page.select_option("#explorer-view", view)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    page.get_by_role("button", name="alert").click()
    page.wait_for_function("document.getElementById('explorer-title').textContent[0] == '<'")
    assert page.locator("#explorer-patch").inner_text() == "Nothing is explained"
    assert page.locator("#explorer-mapped").is_hidden()
    assert problems == []
    page.close()
