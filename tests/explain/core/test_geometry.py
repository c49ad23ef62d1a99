"""Maps lie over the pixels they are about."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pacavit.data import DataInfo, Placement, Region, Sample, SampleRandom
from pacavit.errors import PacavitError
from pacavit.explain.core.geometry import Sampling, samplings, upsample, windows
from pacavit.models import PacaViT
from pacavit.tasks.classification import ClassificationConfig, ClassificationPreprocess
from pacavit.tasks.classification.config import CropConfig

THREE_STAGES: dict[str, Any] = {
    "embed_dims": (4, 8, 12),
    "depths": (1, 1, 1),
    "num_heads": (1, 1, 1),
    "num_clusters": 3,
}
SMALL_IMAGES: dict[str, Any] = {"stem_dims": (4, 4), "transition_convs": 2}
COARSER: dict[str, Any] = SMALL_IMAGES | {"stem_stride": 4}


def test_where_patches_lie() -> None:
    assert samplings(PacaViT(**THREE_STAGES)) == [(4, 0), (8, 0), (16, 0)]
    small = PacaViT(**THREE_STAGES, **SMALL_IMAGES)
    assert samplings(small) == [(2, 0.5), (4, 1.5), (8, 3.5)]
    coarser = PacaViT(**THREE_STAGES, **COARSER)
    assert samplings(coarser) == [(4, 1.5), (8, 3.5), (16, 7.5)]
    with pytest.raises(PacavitError, match="Linear is not a network of this package"):
        samplings(nn.Linear(2, 2))
    with pytest.raises(PacavitError, match="not square"):
        windows(nn.Conv2d(1, 1, (3, 5)))


@pytest.mark.parametrize("settings", [{}, SMALL_IMAGES, COARSER])
def test_a_patch_is_centerd_on_what_its_stage_reads(settings: dict[str, Any]) -> None:
    """The middle of the pixels that reach a patch is where the sampling says."""
    model = PacaViT(**THREE_STAGES, **settings).eval()
    for index, sampling in enumerate(samplings(model)):
        x = torch.zeros(1, 3, 160, 160, requires_grad=True)
        y: Any = x
        stages: Any = model.stages
        for stage in stages[: index + 1]:
            for module in stage.embed.modules():
                if isinstance(module, nn.BatchNorm2d | nn.LayerNorm | nn.ReLU | nn.GELU):
                    setattr(module, "forward", nn.Identity().forward)  # noqa: B010
                elif isinstance(module, nn.Conv2d):
                    nn.init.ones_(module.weight)
                elif isinstance(module, nn.MaxPool2d):
                    setattr(module, "forward", nn.AvgPool2d(2).forward)  # noqa: B010
            tokens, grid = stage.embed(y, None)
            y = tokens.transpose(1, 2).unflatten(2, grid)
        patch = grid.height // 2
        (reads,) = torch.autograd.grad(y[0, 0, patch, patch], x)
        rows = reads[0, 0].sum(1).nonzero().flatten()
        middle = (rows[0] + rows[-1]).item() / 2
        assert middle == sampling.offset + sampling.stride * patch


def test_upsampling_is_linear_between_centers() -> None:
    ramp = torch.arange(5.0).expand(1, 3, 5)
    up = upsample(ramp, Sampling(4, 1.5), (12, 20))
    assert up.shape == (1, 12, 20)
    assert up[0, 0, 4] == pytest.approx((4 - 1.5) / 4)
    assert up[0, 0, 0] == 0
    assert up[0, 0, -1] == 4


@pytest.mark.parametrize("size", [(60, 60), (50, 90), (91, 50), (20, 23)])
@pytest.mark.parametrize("cropped", [False, True])
def test_maps_return_to_where_the_pixels_were(size: tuple[int, int], cropped: bool) -> None:
    """What the network saw of a bright square, put back, covers the square."""
    info = DataInfo("a", "a", ("x", "y"), (48, 32), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    config = ClassificationConfig(crop=CropConfig() if cropped else None)
    preprocess = ClassificationPreprocess(config, info, training=False)
    image = torch.zeros(3, *size, dtype=torch.uint8)
    top, left = round(0.4 * size[0]), round(0.45 * size[1])
    bottom, right = top + round(0.2 * size[0]), left + round(0.15 * size[1])
    image[:, top:bottom, left:right] = 255
    random = SampleRandom(0, 0, torch.zeros(1, dtype=torch.int64))
    fitted = [preprocess.sample(Sample(image, 0, 0), random)]
    batch = preprocess.batch(preprocess.collate(fitted), random)
    (placement,) = batch.placements
    assert placement.image_size == size
    assert placement.input_size == tuple(batch.images.shape[2:])
    region = placement.region
    back = placement.restore(batch.images[:, 0])
    assert back.shape == (1, *size)
    known = back[0].isfinite()
    assert known.any(0).sum() == pytest.approx(region.width, abs=1)
    assert known.any(1).sum() == pytest.approx(region.height, abs=1)
    light = back[0].nan_to_num().numpy()
    for axis, (first, last) in enumerate([(top, bottom), (left, right)]):
        profile = light.sum(1 - axis)
        middle = (profile * np.arange(len(profile))).sum() / profile.sum()
        assert middle == pytest.approx((first + last - 1) / 2, abs=0.35)


def test_outside_of_what_was_seen_there_is_no_data() -> None:
    placement = Placement((4, 8), Region(0, 2, 4, 4), (2, 2))
    back = placement.restore(torch.ones(2, 2))
    assert back[:, 2:6].isfinite().all()
    assert back[:, :2].isnan().all()
    assert back[:, 6:].isnan().all()
    with pytest.raises(ValueError, match="for an input of"):
        placement.restore(torch.ones(3, 2))
