from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pacavit.layers.mlp import ShortcutDepthwise


def plain(layer: ShortcutDepthwise, x: Tensor) -> Tensor:
    return x + nn.functional.conv2d(x, layer.weight, layer.bias, padding=1, groups=x.shape[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_shortcut_is_the_input(dtype: torch.dtype) -> None:
    layer = ShortcutDepthwise(6).to(dtype)
    image = torch.randn(2, 6, 5, 7, dtype=dtype)
    seen = image.clone()
    torch.testing.assert_close(layer(image), plain(layer, image))
    assert torch.equal(image, seen)


def test_half_precision_rounds_the_sum_and_not_the_kernel() -> None:
    layer = ShortcutDepthwise(6)
    image = torch.randn(2, 6, 5, 7).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(image), plain(layer, image))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_gradients_reach_the_kernel_and_the_input(dtype: torch.dtype) -> None:
    layer = ShortcutDepthwise(3).to(dtype)
    gradients = []
    for forward in (layer, lambda x: plain(layer, x)):
        image = torch.linspace(-1, 1, 60, dtype=dtype).view(1, 3, 4, 5).requires_grad_()
        gradients.append(torch.autograd.grad(forward(image).square().sum(), (image, layer.weight)))
    torch.testing.assert_close(gradients[0], gradients[1])
