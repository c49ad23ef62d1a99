"""Common corruptions of images."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pacavit.data import MemoryImages
from pacavit.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt, corrupt_images
from pacavit.errors import UnknownNameError


def picture(height: int = 32, width: int = 32) -> Tensor:
    """Smooth colors with some texture."""
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    texture = torch.randint(0, 60, (3, height, width), generator=torch.Generator().manual_seed(0))
    slope = torch.stack([rows + 0 * columns, columns + 0 * rows, rows + columns])
    return (slope * 3 % 190 + texture).to(torch.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size", [(32, 32), (1, 1), (5, 3), (70, 97)])
def test_corruptions_take_any_size_and_grow_with_severity(name: str, size: tuple[int, int]) -> None:
    image = picture(*size)
    errors = []
    for severity in SEVERITIES:
        changed = corrupt(image, name, severity)
        assert changed.shape == image.shape
        assert changed.dtype == torch.uint8
        errors.append((changed.double() - image.double()).square().mean().item())
    if min(size) >= 32:
        assert errors[0] > 0
        assert errors == sorted(errors)


def test_noise_has_the_deviation_of_the_paper_and_depends_on_seed_and_index() -> None:
    gray = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    for severity, std in zip(SEVERITIES, (0.04, 0.06, 0.08, 0.09, 0.10), strict=True):
        noise = corrupt(gray, "gaussian_noise", severity).double() / 255
        assert noise.std().item() == pytest.approx(std, rel=0.03)
        assert noise.mean().item() == pytest.approx(127.5 / 255, abs=0.003)  # truncated
    large = torch.full((3, 65, 65), 128, dtype=torch.uint8)
    noise = corrupt(large, "gaussian_noise", 1).double() / 255
    assert noise.std().item() == pytest.approx(0.08, rel=0.03)
    first = corrupt(gray, "gaussian_noise", 3, seed=1, index=2)
    assert torch.equal(first, corrupt(gray, "gaussian_noise", 3, seed=1, index=2))
    assert not torch.equal(first, corrupt(gray, "gaussian_noise", 3, seed=1, index=3))
    assert not torch.equal(first, corrupt(gray, "gaussian_noise", 3, seed=2, index=2))


def test_defocus_is_the_mean_over_a_disk_and_keeps_what_is_even() -> None:
    even = torch.full((3, 9, 9), 200, dtype=torch.uint8)
    assert torch.equal(corrupt(even, "defocus_blur", 5), even)
    point = torch.zeros(3, 41, 41, dtype=torch.uint8)
    point[:, 20, 20] = 255
    spread = corrupt(point, "defocus_blur", 4)[0]  # radius 1: the point and its four neighbors
    # A fifth each, less what the smoothed edge leaves of it, truncated.
    assert spread[20, 20] in (50, 51)
    assert spread[19, 20] == spread[20, 21] == spread[20, 19]
    assert spread[19, 20] in (50, 51)
    assert spread.count_nonzero() == 5
    wide = torch.zeros(3, 99, 99, dtype=torch.uint8)
    wide[:, 49, 49] = 255
    assert corrupt(wide, "defocus_blur", 1)[0].count_nonzero() == 29  # a disk of radius 3


def test_contrast_keeps_the_mean_of_each_channel() -> None:
    image = picture()
    changed = corrupt(image, "contrast", 2).double()
    mean = image.double().mean((1, 2), keepdim=True)
    expected = (image.double() - mean) * 0.5 + mean
    assert ((changed - expected).abs() <= 1).all()


def test_pixelate_and_jpeg_are_those_of_pillow() -> None:
    image = picture()
    pillow = Image.fromarray(image.permute(1, 2, 0).numpy())
    small = pillow.resize((20, 20), Image.Resampling.BOX)
    expected = np.array(small.resize((32, 32), Image.Resampling.BOX))
    assert np.array_equal(corrupt(image, "pixelate", 5).permute(1, 2, 0).numpy(), expected)
    stream = io.BytesIO()
    pillow.save(stream, "JPEG", quality=58)
    expected = np.array(Image.open(stream))
    assert np.array_equal(corrupt(image, "jpeg", 3).permute(1, 2, 0).numpy(), expected)


def test_a_set_corrupts_each_image_by_its_position() -> None:
    images = MemoryImages(torch.stack([picture(), picture(), picture()]), torch.tensor([2, 0, 1]))
    changed = corrupt_images(images, "gaussian_noise", 2, seed=7)
    found, labels = changed.batch(torch.tensor([2, 0]))
    assert labels.tolist() == [1, 2]
    assert len(changed) == 3
    for place, index in enumerate((2, 0)):
        expected = corrupt(picture(), "gaussian_noise", 2, seed=7, index=index)
        assert torch.equal(found[place], expected)
        assert torch.equal(changed[index].image, expected)
        assert changed[index].target == images.labels[index]


@pytest.mark.parametrize(
    ("name", "severity", "message"),
    [("gausian_noise", 1, "unknown corruption"), ("jpeg", 6, "unknown severity '6'")],
)
def test_unknown_names_are_refused(name: str, severity: int, message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        corrupt(picture(), name, severity)
