from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pacavit.data import DataInfo, SampleRandom
from pacavit.errors import RecipeError
from pacavit.tasks.classification.config import AugmentConfig, ClassificationConfig, CropConfig
from pacavit.tasks.classification.transforms import EvalTransform, TrainTransform

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)
INFO = DataInfo("toy", "toy", ("a", "b"), (16, 20), MEAN, STD)
NUM = 64


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (NUM, 3, 16, 20), dtype=torch.uint8)


def draws(epoch: int = 0, num: int = NUM) -> SampleRandom:
    return SampleRandom(seed=1, epoch=epoch, indices=torch.arange(num))


def train(images: Tensor, epoch: int = 0, size: int | None = None, **augment: Any) -> Tensor:
    config = ClassificationConfig(augment=AugmentConfig(**augment))
    return TrainTransform(config, INFO, size)(images, draws(epoch, len(images)))


def normalized(images: Tensor) -> Tensor:
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return (images / 255 - mean) / std


def pixels(result: Tensor) -> Tensor:
    """Undo the normalization, back to 0..255."""
    return (result * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]) * 255


def check_form(result: Tensor, size: tuple[int, int]) -> None:
    assert result.shape[1:] == (3, *size)
    assert result.dtype == torch.float32
    assert result.is_contiguous(memory_format=torch.channels_last)


ALL: dict[str, Any] = {
    "flip": "alternate",
    "shift": 4,
    "rotate": 10.0,
    "scale": 0.1,
    "brightness": 0.2,
    "contrast": 0.2,
    "cutout": 6,
    "rand_augment": "rand-m9-n2-mstd0.5-inc1",
    "random_erasing": 0.25,
}


def test_without_augmentation_only_normalized(images: Tensor) -> None:
    result = train(images)
    check_form(result, (16, 20))
    torch.testing.assert_close(result, normalized(images), atol=1e-5, rtol=0)
    torch.testing.assert_close(EvalTransform(INFO)(images), result)


@pytest.mark.parametrize("name", ALL)
def test_each_augmentation_changes_the_images_and_keeps_their_form(
    images: Tensor, name: str
) -> None:
    before = images.clone()
    result = train(images, epoch=1, **{name: ALL[name]})
    check_form(result, (16, 20))
    assert torch.equal(images, before), "the stored images were written to"
    assert not torch.allclose(result, normalized(images), atol=1e-3)
    assert result.isfinite().all()


@pytest.mark.parametrize("name", [*ALL, "all of them"])
def test_the_result_does_not_depend_on_the_batch(images: Tensor, name: str) -> None:
    augment = {name: ALL[name]} if name in ALL else ALL
    transform = TrainTransform(ClassificationConfig(augment=AugmentConfig(**augment)), INFO, 12)
    whole = transform(images, draws())
    some = torch.tensor([5, 60, 2])
    part = transform(images[some], SampleRandom(1, 0, some))
    torch.testing.assert_close(part, whole[some])


def test_random_flip_is_drawn_anew(images: Tensor) -> None:
    results = [train(images, epoch, flip="random") for epoch in range(3)]
    flipped = torch.stack([is_flipped(result, images) for result in results])
    assert 0.3 < flipped.double().mean() < 0.7
    assert not torch.equal(flipped[0], flipped[1])
    assert not torch.equal(flipped[0], ~flipped[1])


def test_alternate_flip_takes_turns(images: Tensor) -> None:
    flipped = [is_flipped(train(images, epoch, flip="alternate"), images) for epoch in range(4)]
    assert 0.3 < flipped[0].double().mean() < 0.7
    assert torch.equal(flipped[1], ~flipped[0])
    assert torch.equal(flipped[2], flipped[0])
    assert torch.equal(flipped[3], ~flipped[0])


def is_flipped(result: Tensor, images: Tensor) -> Tensor:
    plain = (pixels(result) - images).abs().amax((1, 2, 3)) < 0.01
    mirrored = (pixels(result) - images.flip(3)).abs().amax((1, 2, 3)) < 0.01
    assert torch.equal(plain, ~mirrored)
    return mirrored


def test_shift_is_a_crop_of_the_reflected_image(images: Tensor) -> None:
    result = pixels(train(images, shift=3))
    padded = F.pad(images.float(), (3, 3, 3, 3), mode="reflect")
    places = set()
    for index in range(NUM):
        matches = [
            (top, left)
            for top in range(7)
            for left in range(7)
            if torch.allclose(
                padded[index, :, top : top + 16, left : left + 20], result[index], atol=0.01
            )
        ]
        assert len(matches) == 1
        places.add(matches[0])
    assert len({top for top, _ in places}) == len({left for _, left in places}) == 7


def test_shift_and_flip_agree(images: Tensor) -> None:
    """The flipped image is shifted: flipping the input in advance flips nothing but the choice."""
    config = ClassificationConfig(augment=AugmentConfig(flip="alternate", shift=3))
    transform = TrainTransform(config, INFO)
    assert torch.equal(transform(images, draws(0)), transform(images.flip(3), draws(1))) is False
    same = SampleRandom(1, 0, torch.arange(NUM))
    only_shift = TrainTransform(ClassificationConfig(augment=AugmentConfig(shift=3)), INFO)
    only_flip = TrainTransform(ClassificationConfig(augment=AugmentConfig(flip="alternate")), INFO)
    flipped = pixels(only_flip(images, same)).round().to(torch.uint8)
    torch.testing.assert_close(transform(images, same), only_shift(flipped, same))


def test_a_shift_must_be_smaller_than_the_images() -> None:
    with pytest.raises(RecipeError, match=r"augment\.shift 16 must be smaller"):
        TrainTransform(ClassificationConfig(augment=AugmentConfig(shift=16)), INFO)


def test_with_a_crop_the_shift_is_compared_with_what_the_crop_leaves() -> None:
    """INFO's images are larger than the crop in one case, smaller in the other."""
    config = ClassificationConfig(image_size=8, crop=CropConfig(), augment=AugmentConfig(shift=10))
    with pytest.raises(RecipeError, match="8 x 8 pixels"):
        TrainTransform(config, INFO)
    with pytest.raises(RecipeError, match="10 x 10 pixels"):
        TrainTransform(config, INFO, 10)
    TrainTransform(config.model_copy(update={"image_size": 32}), INFO)
    shift = AugmentConfig(shift=20)
    TrainTransform(config.model_copy(update={"image_size": 32, "augment": shift}), INFO)


def test_brightness_scales_the_pixels(images: Tensor) -> None:
    images = images.clamp_min(1)
    ratio = pixels(train(images, brightness=0.2)) / images
    factors = ratio.mean((1, 2, 3))
    assert (ratio - factors[:, None, None, None]).abs().max() < 1e-3
    assert 0.8 <= factors.min() < 0.85
    assert 1.15 < factors.max() <= 1.2


def test_contrast_scales_the_distance_from_the_mean(images: Tensor) -> None:
    result, stored = pixels(train(images, contrast=0.2)), images.float()
    torch.testing.assert_close(result.mean((1, 2, 3)), stored.mean((1, 2, 3)), atol=0.01, rtol=0)
    spread = result.std((1, 2, 3)) / stored.std((1, 2, 3))
    assert 0.79 < spread.min() < 0.85
    assert 1.15 < spread.max() < 1.21


def test_cutout_erases_one_square_to_the_mean() -> None:
    images = torch.full((500, 3, 16, 20), 255, dtype=torch.uint8)
    erased = (train(images, cutout=6) == 0).all(dim=1)
    assert erased.sum((1, 2)).max() == 36
    assert erased.sum((1, 2)).min() >= 9  # a corner
    rows, columns = erased.any(2), erased.any(1)
    assert torch.equal(erased, rows[:, :, None] & columns[:, None, :])
    assert erased.any(0).all(), "every pixel can be hit"


def test_rotation_and_scale_keep_the_aspect() -> None:
    """A round spot keeps its form and size when turned, and changes its size when scaled."""
    rows, columns = torch.meshgrid(torch.arange(16) - 7.5, torch.arange(20) - 9.5, indexing="ij")
    square = rows**2 + columns**2
    spot = (torch.exp(-square / 8) * 255).to(torch.uint8).expand(NUM, 3, -1, -1)
    turned = pixels(train(spot, rotate=180.0))
    assert (turned - spot)[:, :, square < 64].abs().max() < 16  # further out, reflections show
    area = pixels(train(spot, scale=0.2)).sum((1, 2, 3)) / spot.float().sum((1, 2, 3))
    assert 0.64 < area.min() < 0.7
    assert 1.36 < area.max() < 1.46


def test_rotation_turns_by_the_angle_that_was_drawn(images: Tensor) -> None:
    half = (2 * draws().uniform("rotate") - 1).abs().flatten() * 180
    result = pixels(train(images, rotate=180.0))
    most = int(half.argmax())
    assert half[most] > 175
    turned = images[most].flip((1, 2)).float()
    smooth = [F.avg_pool2d(image, 4) for image in (result[most], turned)]
    assert torch.corrcoef(torch.stack([image.flatten() for image in smooth]))[0, 1] > 0.8


@pytest.mark.parametrize("size", [8, 16, 40])
def test_lower_and_higher_resolution(images: Tensor, size: int) -> None:
    check_form(train(images, size=size, **ALL), (size, size))
    config = ClassificationConfig(image_size=size)
    torch.testing.assert_close(
        TrainTransform(config, INFO)(images, draws()), EvalTransform(INFO, size)(images)
    )


def test_an_explicit_size_wins_over_the_recipe(images: Tensor) -> None:
    transform = TrainTransform(ClassificationConfig(image_size=40), INFO, 24)
    check_form(transform(images, draws()), (24, 24))


@pytest.mark.parametrize(("height", "width"), [(7, 5), (1, 300), (33, 64), (500, 400), (16, 16)])
def test_evaluation_takes_any_size(height: int, width: int) -> None:
    images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    check_form(EvalTransform(INFO, 16)(images), (16, 16))
    check_form(EvalTransform(INFO)(images), (16, 20))


def test_evaluation_sees_the_center() -> None:
    images = torch.zeros(1, 3, 30, 90, dtype=torch.uint8)
    images[..., 30:60] = 255
    torch.testing.assert_close(
        pixels(EvalTransform(INFO, 15)(images)), torch.full((1, 3, 15, 15), 255.0)
    )


def test_downscaling_is_antialiased() -> None:
    checkers = ((torch.arange(64)[:, None] + torch.arange(64)) % 2 * 255).to(torch.uint8)
    result = pixels(EvalTransform(INFO, 16)(checkers.expand(1, 3, -1, -1)))
    assert (result - 127.5).abs().max() < 3
