import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from pacavit.data import SampleRandom
from pacavit.tasks.classification.config import CropConfig
from pacavit.tasks.classification.crops import CenterCrop, RandomCrop


def image(height: int = 40, width: int = 60) -> Tensor:
    rows = torch.linspace(0, 200, height)[:, None].expand(-1, width)
    columns = torch.linspace(0, 200, width).expand(height, -1)
    return torch.stack([rows, columns, torch.zeros(height, width)]).to(torch.uint8)


def draws(index: int = 0, epoch: int = 0) -> SampleRandom:
    return SampleRandom(seed=0, epoch=epoch, indices=torch.tensor([index]))


def test_random_crops_belong_to_their_sample_and_leave_no_trace() -> None:
    crop, before = RandomCrop(CropConfig(), 16), torch.get_rng_state()
    first, _ = crop(image(), draws(3))
    assert first.shape == (3, 16, 16)
    assert first.dtype == torch.uint8
    torch.rand(5)
    assert torch.equal(crop(image(), draws(3))[0], first)
    assert not torch.equal(crop(image(), draws(4))[0], first)
    assert not torch.equal(crop(image(), draws(3, epoch=1))[0], first)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_random_crops_have_the_areas_and_aspects_that_were_asked_for() -> None:
    """Each channel runs along one side, so its range tells the part of that side."""
    config = CropConfig(scale=(0.2, 0.5), ratio=(0.75, 4 / 3))
    shares, aspects = [], []
    for index in range(200):
        cut = RandomCrop(config, 32)(image(200, 200), draws(index))[0].float()
        height, width = ((cut[c].max() - cut[c].min()) / 200 for c in (0, 1))
        shares.append(float(height * width))
        aspects.append(float(width / height))
    assert 0.17 < min(shares) < 0.25
    assert 0.45 < max(shares) < 0.55
    assert 0.7 < min(aspects) < 0.85
    assert 1.2 < max(aspects) < 1.42


def test_the_whole_image_where_that_is_asked_for() -> None:
    crop = RandomCrop(CropConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0)), 40)
    cut, region = crop(image(40, 40), draws())
    assert torch.equal(cut, image(40, 40))
    assert region == (0, 0, 40, 40)


@pytest.mark.parametrize(("height", "width"), [(40, 60), (300, 97), (3, 3)])
def test_measuring_sees_what_timm_evaluates_on(height: int, width: int) -> None:
    reference = timm.data.create_transform(
        32, crop_pct=0.9, interpolation="bicubic", use_prefetcher=True
    )
    pixels = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    expected = reference(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
    assert np.array_equal(CenterCrop(CropConfig(), 32)(pixels)[0], expected)


@pytest.mark.parametrize(
    "fields",
    [{"scale": (0.5, 0.2)}, {"scale": (0.0, 1.0)}, {"eval_part": 1.5}, {"ratio": (2.0, 1.0)}],
)
def test_impossible_crops(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CropConfig(**fields)  # type: ignore[arg-type]
