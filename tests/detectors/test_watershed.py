"""Instances from interiors, borders and background."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pacavit.detectors import DETECTORS, Detected, Target, Watershed
from pacavit.detectors.watershed import BACKGROUND, INTERIOR, instance_map, pixel_classes
from pacavit.errors import RecipeError
from pacavit.models import build_pyramid
from pacavit.utils.layout import enlarge

# Two objects that touch, and a third of one row: 1, 2 and 3.
SCENE = """
............
.11111......
.1111122222.
.1111122222.
.1111122222.
.11111......
............
..33333333..
............
"""


def scene() -> Tensor:
    rows = [[int(cell) if cell != "." else 0 for cell in row] for row in SCENE.split()]
    return torch.tensor(rows)


def masks_of(instances: Tensor) -> Tensor:
    return torch.stack([instances == number + 1 for number in range(int(instances.max()))])


def text(classes: Tensor) -> str:
    return "\n".join("".join(".b012"[cell] for cell in row) for row in classes.tolist())


def detector(num_classes: int = 2, **options: Any) -> Watershed:
    torch.manual_seed(0)
    pyramid = build_pyramid("pacavit_nano", drop_path_rate=0.0)
    made = DETECTORS.create(
        "watershed", pyramid, num_classes, options={"head_options": {"channels": 16}, **options}
    )
    assert isinstance(made, Watershed)
    return made


def found_in(classes: Tensor, num_classes: int, **options: Any) -> Detected:
    """What the detector makes of certain probabilities."""
    probabilities = F.one_hot(classes, num_classes + 2).permute(2, 0, 1).float()
    return detector(num_classes, min_area=1, **options)._detected(probabilities, probabilities)


def test_pixels_of_objects_are_border_or_interior() -> None:
    classes = pixel_classes(scene(), torch.tensor([0, 1, 0]), border=1)
    assert text(classes) == (
        "............\n"
        ".bbbbb......\n"
        ".b000bbbbbb.\n"
        ".b000bb111b.\n"
        ".b000bbbbbb.\n"
        ".bbbbb......\n"
        "............\n"
        "..00000000..\n"  # too thin to have a border
        "............"
    )


def test_the_edge_of_the_image_is_no_outline() -> None:
    instances = torch.zeros(5, 6, dtype=torch.int64)
    instances[:3, :3] = 1
    classes = pixel_classes(instances, torch.tensor([0]), border=1)
    assert text(classes) == "00b...\n00b...\nbbb...\n......\n......"


def test_a_wide_border_leaves_the_innermost_pixels_of_small_objects() -> None:
    classes = pixel_classes(scene(), torch.tensor([0, 1, 0]), border=3)
    assert text(classes).split("\n")[2:5] == [".bbbbbbbbbb.", ".bb0bbb111b.", ".bbbbbbbbbb."]


def test_smaller_objects_are_in_front() -> None:
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[0, 1, 1] = masks[1, :3, :3] = masks[2, :2, :2] = True
    shown = instance_map(masks, (4, 5))
    assert shown.tolist() == [[3, 3, 2, 0, 0], [3, 1, 2, 0, 0], [2, 2, 2, 0, 0], [0, 0, 0, 0, 0]]


def test_certain_answers_give_the_objects_back() -> None:
    labels = torch.tensor([0, 1, 0])
    found = found_in(pixel_classes(scene(), labels, border=1), 2)
    assert found.instances is not None
    # In the order of the scores: the object without a border is the most certain.
    assert found.labels.tolist() == [0, 0, 1]
    assert found.boxes.tolist() == [[2, 7, 10, 8], [1, 1, 6, 6], [6, 2, 11, 5]]
    order = [0, 2, 3, 1]  # of the objects of the scene in the answer
    assert torch.equal(found.instances, torch.tensor(order)[scene()])
    # All pixels are foreground; 9 of 25 and 3 of 15 are interior.
    assert found.scores.tolist() == pytest.approx([1.0, 9 / 25, 3 / 15])


def test_small_objects_and_the_least_certain_are_left_out() -> None:
    classes = pixel_classes(scene(), torch.tensor([0, 1, 0]), border=1)
    found = found_in(classes, 2, max_detections=1)
    assert len(found.scores) == 1
    assert found.instances is not None
    assert masks_of(found.instances).sum((1, 2)).tolist() == [8]
    probabilities = F.one_hot(classes, 4).permute(2, 0, 1).float()
    large = detector(2, min_area=9)._detected(probabilities, probabilities)
    assert large.boxes.tolist() == [[1, 1, 6, 6], [6, 2, 11, 5]]


def test_nothing_is_found_in_the_background() -> None:
    found = found_in(torch.zeros(5, 6, dtype=torch.int64), 1)
    assert found.instances is not None
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == found.labels.shape == (0,)
    assert found.instances.sum() == 0


def test_training_lowers_the_losses_and_ignores_padding() -> None:
    model = detector()
    images = torch.randn(2, 3, 32, 48)
    instances = F.pad(scene(), (0, 36, 0, 23))
    masks = masks_of(instances)
    target = Target(torch.zeros(3, 4), torch.tensor([0, 1, 0]), masks)
    empty = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), masks[:0])
    sizes = [(32, 48), (16, 24)]
    model.eval()  # batch statistics would make the images depend on each other
    first = model.losses(images, [target, empty], sizes)
    assert tuple(first) == model.loss_names == ("pixels", "clusters")
    wrong = masks.clone()
    wrong[0, 16:] = True  # in the padding of the second image
    padded = Target(target.boxes, target.labels, wrong)
    same = model.losses(images, [target, target], sizes)
    other = model.losses(images, [target, padded], sizes)
    assert torch.equal(same["pixels"], other["pixels"])
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    values = []
    for _ in range(20):
        loss = sum(model.losses(images, [target, empty], sizes).values())
        assert isinstance(loss, Tensor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.8 * values[0]
    assert all(each.grad is not None for each in model.backbone.parameters())


def test_an_image_is_the_same_in_every_batch() -> None:
    model = detector().eval()
    images = torch.randn(3, 3, 40, 33)
    together = model(images)
    for row, found in enumerate(together):
        [alone] = model(images[row : row + 1])
        assert torch.equal(alone.instances, found.instances)
        torch.testing.assert_close(alone.scores, found.scores, atol=1e-4, rtol=0)


def test_scores_of_boxes_have_gradients() -> None:
    model = detector().eval()
    images = torch.randn(2, 3, 32, 32, requires_grad=True)
    boxes = torch.tensor([[4.0, 4.0, 20.0, 12.0], [0.0, 0.0, 32.0, 32.0]])
    logits = model.class_logits(model.backbone(images), (32, 32), boxes)
    assert logits.shape == (2, 2)
    with torch.no_grad():
        pixels = enlarge(model.head(model.backbone(images)).logits, (32, 32))
    contrast = pixels[0, INTERIOR] - pixels[0, BACKGROUND]
    torch.testing.assert_close(logits[0, 0].detach(), contrast[4:12, 4:20].mean())
    logits[0, 0].backward()
    assert images.grad is not None
    assert images.grad[0].abs().sum() > 0
    assert images.grad[1].abs().sum() == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"border": 0}, "border"),
        ({"marker": 1.0}, "probabilities"),
        ({"foreground": 0.0}, "probabilities"),
        ({"border_weight": 0.0}, "border_weight"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        detector(**options)


def test_boxes_alone_are_not_enough() -> None:
    target = Target(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="masks"):
        detector().losses(torch.randn(1, 3, 32, 32), [target], [(32, 32)])


def test_heads_without_clusters_are_certain_by_their_answer() -> None:
    model = detector(head="upernet").eval()
    assert model.loss_names == ("pixels", "auxiliary")
    [found] = model(torch.randn(1, 3, 64, 64))
    assert found.scores.shape == found.labels.shape
