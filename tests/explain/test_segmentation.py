"""Explanations of segmentations: the questions, their numbers, and the clusters of the head."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pacavit.data import Sample
from pacavit.engine import load_model
from pacavit.engine.predictor import Predictor
from pacavit.errors import DataError, PacavitError, UnknownNameError
from pacavit.explain import (
    FailedImage,
    SegmentationExplanation,
    explain_images,
    render_segmentation,
)
from pacavit.explain.segmentation import read_region
from pacavit.tasks.segmentation import Segmentation

CPU = torch.device("cpu")


def explain_one(weights: Path, path: Path, **options: Any) -> SegmentationExplanation:
    [found] = explain_images(load_model(weights), [path], device=CPU, **options)
    assert isinstance(found, SegmentationExplanation), found
    return found


def failure(weights: Path, path: Path, **options: Any) -> str:
    [found] = explain_images(load_model(weights), [path], device=CPU, **options)
    assert isinstance(found, FailedImage)
    return found.error


@pytest.fixture(scope="module")
def found(segmenter: Path, noise_image: Path) -> SegmentationExplanation:
    return explain_one(segmenter, noise_image)


@pytest.fixture(scope="module")
def record(segmenter: Path, found: SegmentationExplanation) -> Segmentation:
    """What the task predicts for the image."""
    predictor = Predictor(load_model(segmenter))
    result: Segmentation = predictor.records(predictor.prepare([found.image]))[0]
    return result


def test_each_class_is_explained_where_it_is_predicted(
    found: SegmentationExplanation, record: Segmentation
) -> None:
    assert torch.equal(found.labels, record.labels)
    areas = found.areas()
    assert [region.label for region in found.regions] == [label for label, _ in areas]
    assert len(areas) == 3
    probabilities = record.probabilities()
    for region, (label, area) in zip(found.regions, areas, strict=True):
        assert torch.equal(region.region, record.labels == label)
        assert region.area == pytest.approx(area)
        assert region.agreement == 1
        expected = float(probabilities[label][region.region].mean())
        assert region.probability == pytest.approx(expected, abs=1e-5)
        assert region.map.shape == found.placement.input_size
    assert found.method == "cluster_contributions"
    assert found.title() == "cluster contributions, stages 0 and 1"
    assert "was not measured on segmentation" in found.choice.note


def test_probabilities_of_a_pixel_are_those_of_the_task(
    found: SegmentationExplanation, record: Segmentation
) -> None:
    probabilities = record.probabilities()
    for row, column in ((0, 0), (59, 79), (17, 40)):
        expected = probabilities[:, row, column]
        assert torch.allclose(found.probabilities_at(row, column), expected, atol=1e-5)
    with pytest.raises(DataError, match=r"no pixel 80,0 \(x,y\): the image has 80 x 60 pixels"):
        found.probabilities_at(0, 80)


def test_clusters_of_the_head_are_those_that_it_attends_to(
    found: SegmentationExplanation, record: Segmentation
) -> None:
    clusters = found.clusters
    assert clusters is not None
    assert record.cluster_labels is not None
    assert torch.equal(clusters.labels, record.cluster_labels)
    same = (record.cluster_labels == record.labels).float().mean()
    assert clusters.agreement == pytest.approx(float(same))
    assert clusters.attention is not None
    assert torch.allclose(clusters.weights.sum((1, 2)), torch.ones(3))
    assert torch.allclose(clusters.probabilities.sum(0), torch.ones(30, 40))
    assert torch.allclose(clusters.attention.sum(0), torch.ones(30, 40))
    for _, attention in render_segmentation.attended_classes(found, clusters):
        assert float(attention.sum()) == pytest.approx(1, abs=1e-5)


def test_a_region_may_be_asked_about_any_class(
    segmenter: Path, noise_image: Path, found: SegmentationExplanation
) -> None:
    row, column = 30, 50
    own = int(found.labels[row, column])
    [why] = explain_one(segmenter, noise_image, region=(column, row)).regions
    assert why.label == own
    assert why.region[row, column]
    assert (found.labels[why.region] == own).all()
    other = (own + 1) % 3
    [why_not] = explain_one(segmenter, noise_image, region=(column, row), label=other).regions
    assert torch.equal(why_not.region, why.region)
    assert why_not.label == other
    assert why_not.agreement == 0
    assert why_not.probability < why.probability
    assert not torch.allclose(why_not.map, why.map, rtol=1e-3)


def test_a_mask_is_where_it_is_not_zero(segmenter: Path, noise_image: Path, tmp_path: Path) -> None:
    values = np.zeros((60, 80), dtype=np.uint8)
    values[10:30, 20:50] = 3
    expected = torch.from_numpy(values > 0)
    gray = Image.fromarray(values)
    palette = gray.convert("P")
    palette.putpalette([255, 255, 255] * 256)  # index 0 is white, and still outside
    color = Image.merge("RGBA", [gray, *[Image.new("L", gray.size)] * 2, Image.new("L", gray.size)])
    for name, mask in (("gray", gray), ("palette", palette), ("color", color)):
        mask.save(tmp_path / f"{name}.png")
        found = explain_one(segmenter, noise_image, mask=tmp_path / f"{name}.png")
        [region] = found.regions
        assert torch.equal(region.region, expected)
        assert region.label == int(found.labels[expected].long().bincount().argmax())


def test_wrong_questions_are_told_in_a_line(
    segmenter: Path, noise_image: Path, tmp_path: Path
) -> None:
    other, empty, text = tmp_path / "other.png", tmp_path / "empty.png", tmp_path / "text.png"
    Image.new("L", (80, 61), 1).save(other)
    Image.new("L", (80, 60)).save(empty)
    text.write_text("none")
    plain = tmp_path / "plain.png"
    Image.new("RGB", (80, 60), (128, 128, 128)).save(plain)
    assert "no pixel 80,3 (x,y): the image has 80 x 60" in failure(
        segmenter, noise_image, region=(80, 3)
    )
    assert "has 80 x 60 pixels, and the mask has 80 x 61" in failure(
        segmenter, noise_image, mask=other
    )
    labels = set(explain_one(segmenter, plain).labels.unique().tolist())
    missing = next(iter({0, 1, 2} - labels))
    assert "to ask why it is not" in failure(segmenter, plain, label=missing)
    model = load_model(segmenter)
    for options, told in (
        ({"mask": empty}, "is 0 everywhere"),
        ({"mask": text}, "cannot read the mask"),
        ({"mask": tmp_path / "none.png"}, "cannot read the mask"),
        ({"mask": other, "region": (1, 1)}, "a region or a mask, not both"),
        ({"stage": 2}, "stage 2 has no clusters; choose among: 0, 1"),
        ({"measured": tmp_path}, "no measurement at"),
    ):
        with pytest.raises(PacavitError, match=told):
            explain_images(model, [noise_image], device=CPU, **options)
    with pytest.raises(UnknownNameError, match="did you mean 'grad_cam'"):
        explain_images(model, [noise_image], device=CPU, method="gradcam")
    classifier = load_model("cifar10_nano_conv")
    with pytest.raises(PacavitError, match="for models that segment or detect"):
        explain_images(classifier, [noise_image], device=CPU, region=(1, 1))


def test_the_outline_is_around_the_region() -> None:
    region = torch.zeros(20, 30, dtype=torch.bool)
    region[5:15, 10:20] = True
    found = render_segmentation.marked(torch.full((3, 20, 30), 100, dtype=torch.uint8), region)
    assert (found[:, 5:7, 10:20] == 255).all()
    assert (found[:, 4, 9:21] == 0).all()
    assert (found[:, 7:13, 12:18] == 100).all()
    assert (found[:, :4] == 100).all()


def test_pictures_have_one_tile_per_cluster_and_answer(found: SegmentationExplanation) -> None:
    clusters = found.clusters
    assert clusters is not None
    assert render_segmentation.class_picture(found).shape == (3, 240, 320)
    assert render_segmentation.region_picture(found, found.regions[0]).shape == (3, 240, 320)
    # Six tiles of 150 x 200 in a row, of which each has a caption and a margin.
    assert render_segmentation.cluster_gallery(found, clusters).shape == (3, 181, 6 * 206 + 6)
    alone = render_segmentation.alone_picture(found, clusters)  # with a legend below
    assert alone.shape == (3, 331 + 13 + 3 * 6, 3 * 406 + 6)
    figure = render_segmentation.attention_figure(found, clusters)
    assert figure is not None
    assert len(figure.axes[0].get_yticks()) == 3


def test_images_are_explained_as_they_are_resized_for_evaluation(
    segmenter: Path, found: SegmentationExplanation
) -> None:
    model = load_model(segmenter)
    sample, placement = Predictor(model).preprocess.sample(
        Sample(found.image, None, 0),
        None,  # type: ignore[arg-type]
    )
    assert sample.image.shape == (3, 60, 80)
    assert found.placement == placement


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_mask_is_where_values_are_not_0_whatever_the_opacity(mode: str, tmp_path: Path) -> None:
    values = np.zeros((4, 6), np.uint8)
    values[1:3, 2:5] = 255
    shape = Image.fromarray(values)
    if mode == "P":
        image = Image.fromarray(values)
        image.putpalette([9] * 768)  # of one color
    elif mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16))
    else:
        image = shape.convert(mode)
    image.save(tmp_path / "mask.png")
    assert torch.equal(read_region(tmp_path / "mask.png"), torch.from_numpy(values > 0))


def test_a_mask_with_lossy_compression_is_refused(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 255).save(tmp_path / "mask.jpg")
    with pytest.raises(DataError, match=r"mask\.jpg is a JPEG file, .*; save it as PNG"):
        read_region(tmp_path / "mask.jpg")
