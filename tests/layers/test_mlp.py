from __future__ import annotations

import pytest
import torch
from timm.layers import get_act_layer
from torch import Tensor, nn

from pacavit.layers import mlp, optimize
from pacavit.layers.mlp import DepthwiseMlp, ShortcutDepthwise
from pacavit.types import Grid


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


@torch.no_grad()
@pytest.mark.parametrize("act", [nn.GELU, get_act_layer("gelu"), nn.ReLU, nn.SiLU])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("ratio", [1, 2.5, 4])
def test_slices_give_the_same(
    act: type[nn.Module],
    half: bool,
    masked: bool,
    ratio: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    layer = DepthwiseMlp(8, ratio, act).eval()
    tokens, mask = torch.randn(2, 30, 8), torch.arange(60).view(2, 30) % 7 > 0
    given = (tokens, Grid(5, 6), mask if masked else None)
    whole, fast = optimize(layer, half=half), optimize(layer, half=half)
    assert not layer.slices
    assert fast.slices
    seen = tokens.clone()
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        expected = whole(*given)
        monkeypatch.setattr(mlp, "_LARGE", 0)
        found = fast(*given)
    assert torch.equal(tokens, seen)
    tolerance = 2e-2 if half else 1e-5
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(expected.float(), layer(*given), rtol=3e-2, atol=3e-2)
    with torch.enable_grad():  # gradients need the hidden values
        torch.testing.assert_close(optimize(layer)(*given), layer(*given), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_slices_never_hold_all_hidden_values(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = optimize(DepthwiseMlp(8, 4).eval())
    monkeypatch.setattr(mlp, "_LARGE", 0)
    widths = set()
    activate = layer._activate

    def watch(hidden: Tensor) -> Tensor:
        widths.add(hidden.shape[-1])
        return activate(hidden)

    monkeypatch.setattr(layer, "_activate", watch)
    layer(torch.randn(1, 30, 8), Grid(5, 6))
    assert widths == {8}


@torch.no_grad()
@pytest.mark.parametrize("act", [nn.GELU, get_act_layer("gelu"), nn.ReLU])
def test_the_activation_of_a_folded_layer_is_in_place(act: type[nn.Module]) -> None:
    hidden = torch.randn(1, 30, 8)
    expected = act()(hidden)
    found = DepthwiseMlp(8, 4, act)._activate(hidden)
    assert found.data_ptr() == hidden.data_ptr()
    assert torch.equal(found, expected)
