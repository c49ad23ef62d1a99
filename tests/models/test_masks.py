"""Padding: images of different sizes on one canvas."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pacavit.models import PacaViT

SMALL: dict[str, Any] = {
    "embed_dims": (8, 12, 16),
    "depths": (2, 2, 1),
    "num_heads": (2, 2, 4),
    "num_classes": 3,
}
VARIANTS: list[dict[str, Any]] = [
    {"num_clusters": (5, 3, 0)},
    {"num_clusters": 3, "clustering": "linear"},
    {"num_clusters": 3, "clustering": "mlp", "stem_dims": (6, 5), "transition_convs": 2},
    {"num_clusters": 3, "stem_dims": (6,), "stem_stride": 4, "transition_convs": 1},
    {"attention": "lsh", "attention_options": {"chunk_size": 8}},
    {"attention": "slow_fast"},
    {"attention": "full"},
    {"attention": "linformer", "attention_options": {"num_keys": 9, "base_size": 4}},
    {"attention": "local_subsampled", "attention_options": {"window_size": 2}},
    {"attention": "pooled", "attention_options": {"pool_size": 2}},
    {"attention": "spatial_reduction", "attention_options": {"sr_ratio": 2}},
    {"attention": "windows", "attention_options": {"window_size": 2}},
]
CANVAS = (64, 80)


def build(**settings: Any) -> Any:  # Any: submodules are not typed
    torch.manual_seed(0)
    model = PacaViT(**SMALL, **settings).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # Otherwise 0 is mapped to 0, and padding would look harmless.
            nn.init.normal_(module.bias)
            assert module.running_mean is not None
            nn.init.normal_(module.running_mean)
    return model


def on_canvas(images: Tensor, filling: float = 100.0) -> tuple[Tensor, Tensor]:
    height, width = images.shape[2:]
    canvas = filling * torch.randn(len(images), 3, *CANVAS).double()
    canvas[..., :height, :width] = images
    mask = torch.zeros(len(images), *CANVAS, dtype=torch.bool)
    mask[:, :height, :width] = True
    return canvas, mask


@pytest.mark.parametrize("size", [(32, 48), (37, 51), (1, 17)])
@pytest.mark.parametrize("settings", VARIANTS)
def test_a_padded_image_is_the_image(settings: dict[str, Any], size: tuple[int, int]) -> None:
    model, images = build(**settings), torch.randn(2, 3, *size).double()
    canvas, mask = on_canvas(images)
    _, maps = model.forward_intermediates(images)
    final, padded_maps = model.forward_intermediates(canvas, pixel_mask=mask)
    assert torch.equal(final, model.forward_features(canvas, mask))
    for feature, padded, patch_mask in zip(maps, padded_maps, model.patch_masks(mask), strict=True):
        height, width = feature.shape[2:]
        torch.testing.assert_close(padded[..., :height, :width], feature)
        assert patch_mask.shape == (2, *padded.shape[2:])
        assert patch_mask[:, :height, :width].all()
        assert patch_mask.sum() == 2 * height * width
        assert not padded.masked_select(~patch_mask[:, None]).any()
    torch.testing.assert_close(model(canvas, mask), model(images))


@pytest.mark.parametrize("settings", VARIANTS)
def test_padding_has_no_part_in_training(settings: dict[str, Any]) -> None:
    models = build(**settings).train(), build(**settings).train()
    models[1].set_grad_checkpointing()
    images = torch.randn(2, 3, 37, 51).double()
    canvas, mask = on_canvas(images)
    canvas.requires_grad_()
    models[0](images).square().sum().backward()
    models[1](canvas, mask).square().sum().backward()
    for (name, alone), padded in zip(
        models[0].named_parameters(), models[1].parameters(), strict=True
    ):
        torch.testing.assert_close(padded.grad, alone.grad, msg=name)
    for alone, padded in zip(models[0].buffers(), models[1].buffers(), strict=True):
        torch.testing.assert_close(padded, alone)
    assert canvas.grad is not None
    assert not canvas.grad.masked_select(~mask[:, None]).any()


def test_images_of_a_batch_may_have_different_sizes() -> None:
    model = build(**VARIANTS[0])
    sizes = [(64, 80), (40, 33), (7, 80)]
    images = [torch.randn(1, 3, *size).double() for size in sizes]
    # What lies in the padding does not even have to be a number.
    padded = [on_canvas(image, float("nan")) for image in images]
    canvas, mask = (torch.cat(parts) for parts in zip(*padded, strict=True))
    alone = torch.cat([model(image) for image in images])
    torch.testing.assert_close(model(canvas, mask), alone)


def test_a_full_mask_is_no_mask() -> None:
    for settings in VARIANTS:
        model, images = build(**settings), torch.randn(2, 3, 37, 51).double()
        mask = torch.ones(2, 37, 51, dtype=torch.bool)
        torch.testing.assert_close(model(images, mask), model(images))
        assert copy.deepcopy(model).train()(images, mask).isfinite().all()


def test_masks_that_do_not_fit_raise() -> None:
    model, images = build(**VARIANTS[0]), torch.randn(2, 3, 32, 48).double()
    for mask in (torch.ones(2, 32, 48), torch.ones(2, 8, 12, dtype=torch.bool)):
        with pytest.raises(ValueError, match=r"pixel_mask must be bool of shape \(2, 32, 48\)"):
            model(images, mask)
