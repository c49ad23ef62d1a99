from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pacavit.errors import UnknownNameError
from pacavit.utils import linear as _linear
from pacavit.utils.linear import Linear
from pacavit.utils.linear import linear_way as choose_way


@pytest.fixture(autouse=True)
def wide_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The detour on any machine."""
    way = "convolution" if torch.backends.mkldnn.is_available() else "plain"
    monkeypatch.setattr(_linear, "linear_way", lambda: way)
    monkeypatch.setattr(_linear, "_is_amd", lambda: True)
    monkeypatch.setattr(_linear, "_SMALL", 0)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


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
        torch.randn(3, 16, 24),
        torch.randn(3, 24, 50).transpose(1, 2),
        torch.randn(7, 24),
        torch.randn(24),
        torch.randn(2, 3, 5, 24)[:, 1:, ::2],
        torch.randn(0, 5, 24),
    ],
    ids=["tokens", "multiple of 16", "transposed", "rows", "one", "strided", "empty"],
)
def test_results_and_gradients_are_those_of_the_plain_layer(
    x: Tensor, bias: bool, threads: int
) -> None:
    layer, plain = twins(bias)
    torch.testing.assert_close(layer(x), plain(x))
    for own, reference in zip(gradients(layer, x), gradients(plain, x), strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-4, atol=1e-4)


def test_large_products_are_convolutions(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    layer, x = Linear(24, 40), torch.randn(16, 24)
    with patch.object(F, "conv2d", wraps=F.conv2d) as convolve:
        layer(x)
        assert convolve.called
        convolve.reset_mock()
        layer(x[:10])
        assert convolve.called == (threads > 1)  # PyTorch would not give it to oneDNN
        convolve.reset_mock()
        monkeypatch.setattr(_linear, "_is_amd", lambda: False)
        layer(x)
        assert convolve.called == (threads > 1)
        convolve.reset_mock()
        monkeypatch.setattr(_linear, "_SMALL", 16 * 24 * 40)
        layer(x)
        assert not convolve.called


def test_no_bias_is_copied(threads: int) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    layer, x = Linear(24, 40), torch.randn(4, 256, 24)  # PyTorch's least size
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.no_grad(), torch.profiler.profile(activities=activities) as profile:
        layer(x)
    names = {event.name for event in profile.events() or ()}
    assert "aten::mkldnn_convolution" in names
    assert "aten::copy_" not in names


@pytest.mark.parametrize(
    ("environment", "capability", "expected"),
    [
        (None, "AVX512", "convolution"),
        ("", "AVX512", "convolution"),
        ("auto", "AVX2", "plain"),
        ("plain", "AVX512", "plain"),
        ("convolution", "AVX2", "convolution"),
    ],
)
def test_the_way_is_that_of_the_cpu_unless_it_is_set(
    monkeypatch: pytest.MonkeyPatch, environment: str | None, capability: str, expected: str
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    if environment is None:
        monkeypatch.delenv("PACAVIT_LINEAR", raising=False)
    else:
        monkeypatch.setenv("PACAVIT_LINEAR", environment)
    assert choose_way.__wrapped__() == expected


def test_an_unknown_way_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACAVIT_LINEAR", "convolutions")
    with pytest.raises(UnknownNameError, match="PACAVIT_LINEAR"):
        choose_way.__wrapped__()


@pytest.mark.parametrize("native", [True, False])
def test_bf16_weights_are_convolutions_where_the_cpu_has_bf16(
    monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(_linear, "has_bf16", lambda: native)
    layer, plain = (each.bfloat16() for each in twins())
    x = torch.randn(3, 50, 24).bfloat16()
    for enabled in (False, True):
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=enabled),
            patch.object(F, "conv2d", wraps=F.conv2d) as convolve,
        ):
            found = layer(x)
        assert convolve.called == native
        torch.testing.assert_close(found, plain(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
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
