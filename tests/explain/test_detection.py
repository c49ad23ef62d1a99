"""Explanations of objects: what is asked, the answers, and the clusters of the watershed's head."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from pacavit.engine import load_model
from pacavit.engine.predictor import Predictor
from pacavit.errors import PacavitError, UnknownNameError
from pacavit.explain import DetectionExplanation, FailedImage, explain_images, render_detection
from pacavit.explain.explainer import ExplainOptions
from pacavit.explain.images import explainer_of
from pacavit.tasks.detection import Detections

CPU = torch.device("cpu")


def explain_one(weights: Path, path: Path, **options: Any) -> DetectionExplanation:
    [found] = explain_images(load_model(weights), [path], device=CPU, **options)
    assert isinstance(found, DetectionExplanation), found
    return found


def failure(weights: Path, path: Path, **options: Any) -> str:
    [found] = explain_images(load_model(weights), [path], device=CPU, **options)
    assert isinstance(found, FailedImage)
    return found.error


@pytest.fixture(scope="module")
def found(detector: Path, noise_image: Path) -> DetectionExplanation:
    return explain_one(detector, noise_image)


@pytest.fixture(scope="module")
def record(detector: Path, found: DetectionExplanation) -> Detections:
    """What the task predicts for the image."""
    predictor = Predictor(load_model(detector))
    result: Detections = predictor.records(predictor.prepare([found.image]))[0]
    return result


@pytest.fixture
def plain_image(tmp_path: Path) -> Path:
    """A gray image, in which no object is found."""
    path = tmp_path / "plain.png"
    Image.new("RGB", (80, 60), (128, 128, 128)).save(path)
    return path


def test_the_most_certain_objects_are_explained(
    found: DetectionExplanation, record: Detections
) -> None:
    likely = record.above(0.3)
    assert 2 <= len(likely) <= 6
    assert len(likely) < len(record)
    assert [each.box for each in found.boxes] == [tuple(box) for box in likely.boxes.tolist()]
    assert [each.label for each in found.boxes] == likely.labels.tolist()
    assert [each.score for each in found.boxes] == likely.scores.tolist()
    assert torch.equal(found.detections.boxes, record.boxes)
    for each in found.boxes:
        assert each.map.shape == found.placement.input_size
        assert each.map.isfinite().all()
        assert each.map.max() > 0
    assert found.method == "cluster_contributions"
    assert found.title() == "cluster contributions, stages 0 and 1"
    assert "was not measured on instance segmentation" in found.choice.note


def test_fewer_objects_on_request(
    detector: Path, noise_image: Path, found: DetectionExplanation
) -> None:
    model = load_model(detector)
    explainer = explainer_of(model)(model, ExplainOptions(most=1), CPU)
    [first] = explainer(found.image, noise_image).boxes
    assert first.box == found.boxes[0].box


def test_objects_of_a_class(detector: Path, noise_image: Path, found: DetectionExplanation) -> None:
    others = explain_one(detector, noise_image, label=1).boxes
    assert [each.box for each in others] == [each.box for each in found.boxes if each.label == 1]
    assert others


def test_the_object_at_a_pixel_is_the_one_whose_mask_covers_it(
    detector: Path, noise_image: Path, record: Detections
) -> None:
    assert record.masks is not None
    for number in range(2):
        row, column = record.masks[number].decode().nonzero()[0].tolist()
        [one] = explain_one(detector, noise_image, region=(column, row)).boxes
        assert one.box == tuple(record.boxes[number].tolist())
        assert one.score == float(record.scores[number])
    free = ~torch.stack([mask.decode() for mask in record.masks]).any(0)
    row, column = free.nonzero()[0].tolist()
    told = failure(detector, noise_image, region=(column, row))
    assert f"noise.png: no object was found at pixel {column},{row}; name a box" in told


def test_any_box_and_class_can_be_asked_about(
    detector: Path, noise_image: Path, plain_image: Path, found: DetectionExplanation
) -> None:
    [nothing] = explain_one(detector, plain_image, box=(10, 10, 30, 40), label=1).boxes
    assert (nothing.label, nothing.box, nothing.score) == (1, (10, 10, 30, 40), None)
    # Without a class it is the one with the highest logit.
    box = (10, 10, 30, 40)
    [likely] = explain_one(detector, noise_image, box=box).boxes
    by_class = [explain_one(detector, noise_image, box=box, label=k).boxes[0] for k in (0, 1)]
    assert likely.logit == max(each.logit for each in by_class)
    assert likely.label == max(by_class, key=lambda each: each.logit).label
    # What is outside of the image does not count.
    [cut] = explain_one(detector, noise_image, box=(-20, -5, 30, 900)).boxes
    assert cut.box == (0, 0, 30, 60)


def test_the_box_of_an_object_asks_about_the_object(
    detector: Path, noise_image: Path, found: DetectionExplanation
) -> None:
    first = found.boxes[0]
    x1, y1, x2, y2 = (round(value, 2) for value in first.box)
    [same] = explain_one(detector, noise_image, box=(x1, y1, x2, y2)).boxes
    assert (same.label, same.score, same.logit) == (first.label, first.score, first.logit)
    assert torch.equal(same.map, first.map)
    other = 1 - first.label
    [why_not] = explain_one(detector, noise_image, box=(x1, y1, x2, y2), label=other).boxes
    assert (why_not.label, why_not.score) == (other, None)
    assert why_not.logit < first.logit


def test_an_image_without_objects_has_no_maps(detector: Path, plain_image: Path) -> None:
    nothing = explain_one(detector, plain_image)
    assert nothing.boxes == ()
    assert len(nothing.detections) == 0
    assert nothing.stages == ()
    assert nothing.clusters is not None
    told = failure(detector, plain_image, label=1)
    assert "no object of class 'a <b>/car' with a score of at least 0.3 was found" in told


def test_wrong_questions_are_told_in_a_line(detector: Path, noise_image: Path) -> None:
    assert "nothing of the box 80,0,90,10 (x1,y1,x2,y2) is inside the image, which has 80 x 60" in (
        failure(detector, noise_image, box=(80, 0, 90, 10))
    )
    assert "nothing of the box 20,5,10,9 " in failure(detector, noise_image, box=(20, 5, 10, 9))
    assert "no pixel 80,3 (x,y): the image has 80 x 60" in failure(
        detector, noise_image, region=(80, 3)
    )
    model = load_model(detector)
    for options, told in (
        ({"box": (1, 1, 9, 9), "region": (1, 1)}, "a box or a pixel, not both"),
        ({"mask": noise_image}, "a mask is for segmentation models"),
        ({"stage": 2}, "stage 2 has no clusters; choose among: 0, 1"),
    ):
        with pytest.raises(PacavitError, match=told):
            explain_images(model, [noise_image], device=CPU, **options)
    with pytest.raises(UnknownNameError, match="did you mean 'd_rise'"):
        explain_images(model, [noise_image], device=CPU, method="drise")
    classifier = load_model("cifar10_nano_conv")
    with pytest.raises(PacavitError, match="d_rise explains objects"):
        explain_images(classifier, [noise_image], device=CPU, method="d_rise")
    with pytest.raises(PacavitError, match="for models that"):
        explain_images(classifier, [noise_image], device=CPU, box=(1, 1, 9, 9))


def test_clusters_of_the_head_are_those_of_a_segmentation(found: DetectionExplanation) -> None:
    clusters = found.clusters
    assert clusters is not None
    assert found.cluster_names == (
        "background",
        "border",
        "interior of disc",
        "interior of a <b>/car",
    )
    assert clusters.weights.shape == (4, 30, 40)
    assert torch.allclose(clusters.weights.sum((1, 2)), torch.ones(4))
    assert torch.allclose(clusters.probabilities.sum(0), torch.ones(30, 40))


def test_pictures_have_the_size_of_a_display(
    detector: Path, plain_image: Path, found: DetectionExplanation
) -> None:
    assert render_detection.objects_picture(found).shape == (3, 240, 320)
    assert render_detection.box_picture(found, found.boxes[0]).shape == (3, 240, 320)
    assert found.clusters is not None
    # Two tiles of 150 x 200 per cluster, six in a row.
    sheet = render_detection.cluster_sheet(found, found.clusters)
    assert sheet.shape == (3, 2 * 175 + 6, 6 * 206 + 6)
    asked = explain_one(detector, plain_image, box=(10, 10, 30, 40))
    nothing = explain_one(detector, plain_image)
    marked, plain = (render_detection.objects_picture(each).int() for each in (asked, nothing))
    changed = (marked != plain).any(0).nonzero()
    scale = 320 / 80
    assert changed.min(0).values.tolist() == pytest.approx([10 * scale, 10 * scale], abs=20)
    assert changed.max(0).values.tolist() == pytest.approx([40 * scale, 30 * scale], abs=20)
