import pytest
import torch

from pacavit.data import render_scenes
from pacavit.data.sources.scenes import NUM_SHAPES, SHAPE_NAMES, _outlines


def test_a_scene_is_the_same_in_every_batch() -> None:
    together = render_scenes(torch.arange(40), size=48)
    for numbers in ([7], [39, 2, 11], list(range(5, 24))):
        part = render_scenes(torch.tensor(numbers), size=48)
        for whole, own in zip(together, part, strict=True):
            assert torch.equal(whole[numbers], own)


def test_scenes_never_change() -> None:
    """Published numbers depend on it: these answers must never change."""
    scenes = render_scenes(torch.arange(4), size=32)
    assert scenes.classes[:, 0].tolist() == [2, 2, 5, 6]
    assert scenes.images.long().sum((1, 2, 3)).tolist() == [374579, 356266, 506523, 399218]


def test_other_seeds_and_numbers_show_other_scenes() -> None:
    first = render_scenes(torch.tensor([0]))
    for other in (render_scenes(torch.tensor([0]), seed=1), render_scenes(torch.tensor([1 << 32]))):
        assert not torch.equal(first.images, other.images)


@pytest.mark.parametrize("size", [24, 64])
def test_the_ground_truth_is_consistent(size: int) -> None:
    scenes = render_scenes(torch.arange(100), size=size)
    masks, present = scenes.masks, scenes.classes >= 0
    assert scenes.images.shape == (100, 3, size, size)
    assert masks.shape == (100, NUM_SHAPES, size, size)
    assert torch.equal(masks.any((2, 3)), present)
    assert present[:, 0].all()
    assert masks.sum(1).max() == 1
    for scene, number in present.nonzero().tolist():
        mask, name = masks[scene, number], scenes.classes[scene, number]
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        x1, y1, x2, y2 = scenes.boxes[scene, number].tolist()
        assert (x1, y1) == (columns[0], rows[0])
        assert (x2, y2) == (columns[-1] + 1, rows[-1] + 1)
        assert (scenes.semantic[scene][mask] == name + 1).all()
    assert torch.equal(scenes.semantic > 0, scenes.instances > 0)
    assert (scenes.boxes[~present] == 0).all()


def test_the_subject_has_the_largest_box() -> None:
    """So that the class of a picture is well defined."""
    boxes = render_scenes(torch.arange(300)).boxes
    sides = (boxes[..., 2:] - boxes[..., :2]).amax(-1)
    assert (sides[:, 0] > sides[:, 1:].amax(1)).float().mean() > 0.98
    assert sides[:, 0].min() > 64 * 0.25 * 2 * 0.7


def test_shapes_stand_out_from_the_ground() -> None:
    scenes = render_scenes(torch.arange(100))
    pixels = scenes.images.float() / 255
    subject, ground = scenes.masks[:, :1], (scenes.instances == 0)[:, None]
    difference = _mean(pixels, subject) - _mean(pixels, ground)
    assert difference.abs().amax(1).min() > 0.08


def test_outlines_are_the_shapes_they_are_called() -> None:
    reach = dict(zip(SHAPE_NAMES, _outlines(), strict=True))
    assert torch.equal(reach["circle"], reach["ring"])
    torch.testing.assert_close(reach["circle"], torch.ones(1024), atol=1e-3, rtol=0)
    assert reach["square"].min() == pytest.approx(0.5**0.5, abs=1e-3)
    assert reach["triangle"].min() == pytest.approx(0.5, abs=1e-3)
    assert reach["star"].min() == pytest.approx(0.45, abs=1e-2)
    for name in SHAPE_NAMES:
        assert 0.99 < reach[name].max() <= 1 + 1e-6


def _mean(pixels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (pixels * mask).sum((2, 3)) / mask.sum((2, 3))
