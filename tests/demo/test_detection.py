"""Detectors in the demo: objects, what is shown of them, and a page that mixes tasks."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from pacavit.demo.archive import write_zip
from pacavit.demo.classification.classified import Classified
from pacavit.demo.detection import views
from pacavit.demo.detection.detected import Detected
from pacavit.demo.explained import Place
from pacavit.demo.models import Models
from pacavit.report.explanation.page import write_explanations

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page
    from tests.demo.conftest import Serve


@pytest.fixture(scope="module")
def both(detector: Path) -> Models:
    return Models([str(detector)])


@pytest.fixture(scope="module")
def found(both: Models, noise_image: Path) -> Detected:
    result = both.explain(both.names[0], noise_image)
    assert isinstance(result, Detected)
    return result


@pytest.fixture
def nothing(both: Models, tmp_path: Path) -> Detected:
    """A gray image, in which no object is found."""
    path = tmp_path / "plain.png"
    Image.new("RGB", (80, 60), (128, 128, 128)).save(path)
    result = both.explain(both.names[0], path)
    assert isinstance(result, Detected)
    return result


def test_the_first_object_is_explained(both: Models, found: Detected, noise_image: Path) -> None:
    assert found.chosen is not None
    assert found.chosen.number == 0
    assert len(found.explanation.boxes) == 1
    assert isinstance(both.explain("cifar10_nano_kmeans", noise_image), Classified)


def test_another_object_and_class_can_be_explained(
    both: Models, found: Detected, noise_image: Path
) -> None:
    second = both.explain(both.names[0], noise_image, place=found.place_of(1))
    assert isinstance(second, Detected)
    assert second.chosen is not None
    assert second.chosen.number == 1
    assert second.place == found.place_of(1)
    # Without a place the question is about the box of the first object, whatever its class.
    names = found.explanation.names
    for number in (0, 1):
        asked = both.explain(both.names[0], noise_image, label=names[number])
        assert isinstance(asked, Detected)
        assert asked.chosen is not None
        assert found.chosen is not None
        assert asked.place == found.place
        assert asked.chosen.label == number
        assert (asked.chosen.number is None) == (number != found.chosen.label)


def test_a_click_chooses_the_object_whose_mask_covers_the_pixel(found: Detected) -> None:
    detections = found.explanation.detections
    assert detections.masks is not None
    for number in range(2):
        row, column = detections.masks[number].decode().nonzero()[0].tolist()
        assert found.object_at(4 * column + 1, 4 * row + 1, 0.3) == number
    # In the box of the second object and outside of all masks: the smallest box decides.
    x1, y1, x2, y2 = detections.boxes[1].int().tolist()
    masks = [mask.decode() for mask in detections.above(0.3).masks or ()]
    free = [
        (row, column)
        for row in range(y1, y2)
        for column in range(x1, x2)
        if not any(mask[row, column] for mask in masks)
    ]
    row, column = free[0]
    assert found.object_at(4 * column + 1, 4 * row + 1, 0.3) == 1
    assert found.object_at(4 * column + 1, 4 * row + 1, 0.99) is None


def test_the_slider_leaves_out_objects(found: Detected) -> None:
    number = len(found.explanation.detections)
    likely = len(found.explanation.detections.above(0.3))
    assert len(views.choices(found, 0.0)) == number
    choices = views.choices(found, 0.3)
    assert [number for _, number in choices] == list(range(likely))
    assert choices[0][0].startswith("1: ")
    table = views.objects(found, 0.3)
    assert table.count('<th scope="row">') == likely
    assert table.count("pv-chosen") == 1
    assert f"{number - likely} more have lower scores" in table
    assert "a &lt;b&gt;/car" in table
    none = views.objects(found, 0.95)
    highest = float(found.explanation.detections.scores[0])
    assert f"No object has a score of at least 0.95; the highest of {number} is {highest:.3f}" in (
        none
    )
    few, many = (np.asarray(views.picture(found, score)) for score in (0.95, 0.0))
    assert few.shape == many.shape == (240, 320, 3)
    assert not np.array_equal(few, many)


def test_fragments_say_why(both: Models, found: Detected, noise_image: Path) -> None:
    assert found.chosen is not None
    shown = views.why(found)
    assert "Why is this " in shown
    assert f"{found.chosen.score:.3f}" in shown
    assert "was not measured on instance segmentation" in shown
    clusters = views.clusters(found)
    assert clusters.count("<figure") == 4
    assert "interior of disc" in clusters
    asked = both.explain(
        both.names[0], noise_image, label="disc", place=Place(box=(20.0, 30, 30, 40))
    )
    assert isinstance(asked, Detected)
    assert "Why, or why not, disc in this box?" in views.why(asked)
    for fragment in (shown, clusters, views.objects(found, 0.0)):
        assert "://" not in fragment


def test_an_image_without_objects_is_shown_as_it_is(nothing: Detected) -> None:
    assert nothing.chosen is None
    assert nothing.place == Place()
    assert views.why(nothing) == ""
    assert "No object was found" in views.objects(nothing, 0.5)
    assert np.asarray(views.picture(nothing, 0.0)).std() == 0
    assert nothing.object_at(10, 10, 0.0) is None


def test_the_zip_holds_the_page_and_the_pictures(found: Detected, tmp_path: Path) -> None:
    with ZipFile(write_zip([found], tmp_path, write_explanations)) as archive:
        names = {Path(name).name for name in archive.namelist()}
    assert {"index.html", "explanations.json", "objects.jpg", "clusters.png"} < names


@pytest.fixture
def url(detector: Path, serve: "Serve") -> Iterator[str]:
    with serve(str(detector)) as url:
        yield url


def objects(page: "Page", number: int) -> None:
    """Wait until the table has so many rows."""
    page.wait_for_function(
        "(number) => document.querySelectorAll('#pv-objects tbody tr').length == number",
        arg=number,
    )


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting':DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The copy keyword is deprecated:DeprecationWarning")
def test_a_person_lowers_the_score_and_clicks_an_object(
    browser: "Browser", url: str, noise_image: Path, found: Detected
) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url)
    page.locator(".pv-message").filter(has_text="explained by").first.wait_for()
    page.locator("#pv-image input[type=file]").wait_for(state="attached")
    if page.get_by_label("Remove Image").count():
        page.get_by_label("Remove Image").click()
    page.locator("#pv-image input[type=file]").set_input_files(noise_image)
    page.locator(".pv-message").filter(has_text="noise.png, explained by").first.wait_for()
    why = page.locator("#pv-why h3")
    why.wait_for()
    assert page.locator("#pv-objects").inner_text().startswith("No object has a score")
    score = page.locator("#pv-score input[type=range]")
    score.focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    detections = found.explanation.detections.above(0.3)
    objects(page, len(detections))
    picture = page.locator("#pv-objects-picture img")
    picture.evaluate("element => element.decode()")
    box = picture.bounding_box()
    assert box is not None
    assert detections.masks is not None
    row, column = detections.masks[1].decode().nonzero()[3].tolist()
    picture.click(
        position={
            "x": (column + 0.5) / 80 * box["width"],
            "y": (row + 0.5) / 60 * box["height"],
        }
    )
    page.locator("#pv-objects tr.pv-chosen td").first.filter(has_text="2").wait_for()
    assert page.locator("#pv-why img").count() == 1
    page.get_by_label("Object to explain").click()
    page.get_by_role("option", name="1: ").click()
    page.locator("#pv-objects tr.pv-chosen td").first.filter(has_text="1").wait_for()
    page.get_by_role("tab", name="Clusters of the head").last.click()
    assert page.locator("#pv-object-clusters img").count() == 4
    page.get_by_label("Weights").click()
    page.get_by_role("option", name="cifar10_nano_kmeans").click()
    page.locator("#pv-masks img").first.wait_for()
    assert page.locator("#pv-objects-picture").is_hidden()
    assert problems == []
    page.close()
