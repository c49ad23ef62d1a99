from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.utils import linear as _linear
from pacavit.utils.linear import Linear


@pytest.fixture(autouse=True)
def wide_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The detour on any machine."""
    monkeypatch.setattr(_linear, "_WIDE_CPU", torch.backends.mkldnn.is_available())
    monkeypatch.setattr(_linear, "_SMALL", 0)


def twins(bias: bool = True) -> tuple[Linear, nn.Linear]:
    layer, plain = Linear(24, 40, bias=bias), nn.Linear(24, 40, bias=bias)
    plain.load_state_dict(layer.state_dict())
    return layer, plain


def gradients(layer: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    layer(x).square().sum().backward()
    return [x.grad, *(each.grad for each in layer.parameters())]  # type: ignore[list-item]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "x",
    [
        torch.randn(3, 50, 24),
        torch.randn(3, 24, 50).transpose(1, 2),
        torch.randn(7, 24),
        torch.randn(24),
        torch.randn(2, 3, 5, 24)[:, 1:, ::2],
        torch.randn(0, 5, 24),
    ],
    ids=["tokens", "transposed", "rows", "one", "strided", "empty"],
)
def test_results_and_gradients_are_those_of_the_plain_layer(x: Tensor, bias: bool) -> None:
    layer, plain = twins(bias)
    torch.testing.assert_close(layer(x), plain(x))
    for own, reference in zip(gradients(layer, x), gradients(plain, x), strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-4, atol=1e-4)


def test_large_products_are_convolutions(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    layer, x = Linear(24, 40), torch.randn(10, 24)
    with patch.object(F, "conv2d", wraps=F.conv2d) as convolve:
        layer(x)
        assert convolve.called
        convolve.reset_mock()
        monkeypatch.setattr(_linear, "_SMALL", 10 * 24 * 40)
        layer(x)
        assert not convolve.called


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_left_to_pytorch(dtype: torch.dtype) -> None:
    layer, plain = (each.to(dtype) for each in twins())
    x = torch.randn(3, 50, 24, dtype=dtype)
    assert torch.equal(layer(x), plain(x))


def test_autocast_decides_on_the_precision() -> None:
    layer, plain = twins()
    x = torch.randn(3, 50, 24)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
        assert torch.equal(layer(x), plain(x))


def test_a_wrong_width_is_the_error_of_the_plain_layer() -> None:
    layer, plain = twins()
    for x in (torch.randn(2, 12), torch.randn(2, 48)):
        messages = []
        for each in (layer, plain):
            with pytest.raises(RuntimeError) as caught:
                each(x)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


def test_an_exported_program_has_the_plain_layer() -> None:
    program = torch.export.export(Linear(24, 40), (torch.randn(3, 50, 24),))
    names = [str(node.target) for node in program.graph.nodes]
    assert any("linear" in name for name in names)
    assert not any("conv" in name for name in names)
