"""Segmentation models in the demo: pixels, what is shown of them, and a page that mixes tasks."""

import re
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import numpy as np
import pytest

from pacavit.demo.archive import write_zip
from pacavit.demo.classification.classified import Classified
from pacavit.demo.examples import own_images
from pacavit.demo.explained import Place
from pacavit.demo.models import Models
from pacavit.demo.segmentation import views
from pacavit.demo.segmentation.segmented import Segmented
from pacavit.engine import load_model
from pacavit.errors import DataError
from pacavit.report.explanation.page import write_explanations

if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from tests.demo.conftest import Serve


@pytest.fixture(scope="module")
def both(segmenter: Path) -> Models:
    return Models([str(segmenter)])


@pytest.fixture(scope="module")
def found(both: Models, noise_image: Path) -> Segmented:
    result = both.explain(both.names[0], noise_image)
    assert isinstance(result, Segmented)
    return result


def test_models_of_both_tasks_are_offered(
    both: Models, found: Segmented, noise_image: Path
) -> None:
    assert found.pixel == (40, 30)  # the center
    assert isinstance(both.explain("cifar10_nano_kmeans", noise_image), Classified)


def test_a_pixel_of_the_picture_is_one_of_the_image(found: Segmented) -> None:
    assert found.size == (240, 320)
    assert found.image_pixel(0, 0) == (0, 0)
    assert found.image_pixel(319, 239) == (79, 59)
    assert found.image_pixel(400, -3) == (79, 0)
    x, y = found.displayed()
    assert found.image_pixel(x, y) == found.pixel


def test_a_click_asks_about_its_region(both: Models, found: Segmented, noise_image: Path) -> None:
    labels = found.explanation.labels
    row, column = (labels != labels[30, 40]).nonzero()[0].tolist()
    other = both.explain(both.names[0], noise_image, place=Place(pixel=(column, row)))
    assert isinstance(other, Segmented)
    assert other.region.label == int(labels[row, column])
    assert other.region.region[row, column]
    assert other.likely(3)[0][0] == other.region.label
    not_sky = both.explain(
        both.names[0], noise_image, place=Place(pixel=(column, row)), label="sky"
    )
    assert isinstance(not_sky, Segmented)
    assert not_sky.region.label == 0
    with pytest.raises(DataError, match="no pixel 900,3"):
        both.explain(both.names[0], noise_image, place=Place(pixel=(900, 3)))


def test_attention_of_a_pixel_sums_to_one(found: Segmented) -> None:
    assert sum(weight for _, weight in found.attended(3)) == pytest.approx(1, abs=1e-4)
    assert sum(value for _, value in found.likely(3)) == pytest.approx(1, abs=1e-4)


def test_fragments_show_classes_clusters_and_the_region(found: Segmented) -> None:
    areas = views.areas(found)
    assert areas.count("<li") == 3
    assert "a &lt;b&gt;/car" in areas
    pixel = views.pixel(found)
    assert "Pixel 40,30: " in pixel
    assert pixel.count("<li") == 3
    assert pixel.count("<figure") == len([w for _, w in found.attended(6) if w >= 0.005])
    assert "Why is this " in views.region(found)
    assert "was not measured on segmentation" in views.region(found)
    clusters = views.clusters(found)
    assert clusters.count("<figure") == 1 + 3
    assert "agree with the final answer" in clusters
    for shown in (areas, pixel, clusters, views.region(found)):
        assert "://" not in shown


def test_the_line_under_the_picture_knows_every_class(found: Segmented) -> None:
    fragment = views.hover(found)
    assert 'data-width="200" data-height="150"' in fragment
    cells = re.search(r'data-cells="([^"]+)"', fragment)
    assert cells is not None
    shown = np.frombuffer(b64decode(cells[1]), np.uint8).reshape(150, 200)
    labels = found.explanation.labels.numpy()  # of 60 x 80 pixels
    assert (shown[1::5, 1::5] == labels[::2, ::2]).mean() > 0.95
    assert "a &lt;b&gt;/car" in fragment


def test_the_opacity_is_that_of_the_classes(found: Segmented) -> None:
    plain, half, full = (
        np.asarray(views.picture(found, opacity), dtype=float) for opacity in (0.0, 0.5, 1.0)
    )
    assert half.shape == (240, 320, 3)
    assert np.abs(half - (plain + full) / 2).max() <= 1


def test_the_zip_holds_the_page_and_the_pictures(found: Segmented, tmp_path: Path) -> None:
    with ZipFile(write_zip([found], tmp_path, write_explanations)) as archive:
        names = {Path(name).name for name in archive.namelist()}
    assert {"index.html", "explanations.json", "overlay.jpg", "clusters.png"} < names


def test_examples_of_missing_data_are_left_to_others(segmenter: Path, tmp_path: Path) -> None:
    assert own_images(tmp_path, load_model(segmenter)) == []


@pytest.fixture
def url(segmenter: Path, serve: "Serve") -> Iterator[str]:
    with serve(str(segmenter)) as url:
        yield url


@pytest.mark.browser
@pytest.mark.filterwarnings("ignore:'future.no_silent_downcasting':DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The copy keyword is deprecated:DeprecationWarning")
def test_a_person_clicks_a_region_and_changes_to_a_classifier(
    browser: "Browser", url: str, segmenter: Path
) -> None:
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(url)
    page.locator("#pv-image input[type=file]").first.wait_for(state="attached")
    page.locator("#pv-pixel h3").first.wait_for()
    before = page.locator("#pv-pixel h3").first.inner_text()
    picture = page.locator("#pv-classes-picture img")
    box = picture.bounding_box()
    assert box is not None
    named = page.locator("#pv-hover span").last
    picture.hover(position={"x": box["width"] / 2, "y": box["height"] / 2})
    page.wait_for_function(
        "(names) => names.includes(document.querySelector('#pv-hover p').lastChild.textContent)",
        arg=list(load_model(segmenter).info.class_names),
    )
    assert before == f"Pixel 128,128: {named.inner_text()}"
    picture.click(position={"x": 4, "y": 4})
    page.wait_for_function(
        "(text) => document.querySelector('#pv-pixel h3').textContent != text", arg=before
    )
    assert page.locator("#pv-region img").count() == 1
    page.get_by_role("tab", name="Clusters of the head").click()
    assert page.locator("#pv-head-clusters img").count() >= 2
    page.get_by_label("Weights").click()
    page.get_by_role("option", name="cifar10_nano_kmeans").click()
    page.locator("#pv-masks img").first.wait_for()
    assert page.locator("#pv-classes-picture").is_hidden()
    assert problems == []
    page.close()
