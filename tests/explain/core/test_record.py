"""Recordings: exact attention and gradients, in every mode, and no trace afterwards."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from pacavit.attention import QkvAttention
from pacavit.errors import PacavitError
from pacavit.explain.core.record import BlockRecord, record, record_until
from pacavit.models import PacaViT

MakeSmall = Callable[..., PacaViT]
SpellOut = Callable[[nn.Module, Tensor, int], list[Tensor]]


@pytest.mark.parametrize("clustering", ["conv", "dbscan"])
@pytest.mark.parametrize("training", [False, True])
def test_attention_and_gradient_are_those_of_autograd(
    small: MakeSmall, spell_out: SpellOut, clustering: str, training: bool
) -> None:
    model = small(clustering=clustering).double().train(training)
    images = torch.randn(2, 3, 40, 32, dtype=torch.float64)
    with record(model) as recording:
        recording.backward(model(images)[:, 1])
    attentions = spell_out(model, images, 1)
    assert len(recording.blocks) == len(attentions) == 5
    for block, attention in zip(recording.blocks, attentions, strict=True):
        assert attention.grad is not None
        torch.testing.assert_close(block.attention(), attention.detach())
        torch.testing.assert_close(block.attention_gradient(), attention.grad)


def tensors_of(block: BlockRecord) -> list[Tensor]:
    """What a record holds."""
    found = [value for value in vars(block.reading).values() if isinstance(value, Tensor)]
    assert len(found) >= 4
    return found


def test_recording_leaves_no_trace(small: MakeSmall) -> None:
    model = small()
    images = torch.randn(2, 3, 32, 32)
    with record(model) as recording:
        recording.backward(model(images)[:, 0])
    for module in model.modules():
        hooks = [name for name in vars(module) if "hooks" in name]
        assert not any(getattr(module, name) for name in hooks), type(module)
    assert all(parameter.grad is None for parameter in model.parameters())
    before = recording.blocks[0].attention()
    model(torch.randn(1, 3, 48, 48))  # is not recorded any more
    torch.testing.assert_close(recording.blocks[0].attention(), before)
    for block in recording.blocks:
        assert not any(tensor.requires_grad for tensor in tensors_of(block))
        assert not block.attention_gradient().requires_grad


def test_the_network_answers_the_same_while_recorded(small: MakeSmall) -> None:
    model = small().eval()
    images = torch.randn(2, 3, 32, 32)
    expected = model(images)
    with record(model):
        torch.testing.assert_close(model(images), expected, rtol=0, atol=0)


def test_the_last_of_several_passes_counts(small: MakeSmall) -> None:
    model = small().eval()
    with record(model) as recording, torch.no_grad():
        model(torch.randn(4, 3, 64, 64))
        model(torch.randn(1, 3, 32, 48))
    assert recording.image_size == (32, 48)
    assert [block.grid for block in recording.blocks] == [
        (8, 12),
        (8, 12),
        (4, 6),
        (4, 6),
        (2, 3),
    ]
    assert recording.blocks[0].attention().shape == (1, 2, 96, 5)
    assert recording.clustered_stages == (0, 1)


def test_callers_own_backward_is_recorded(small: MakeSmall) -> None:
    model = small().eval()
    images = torch.randn(2, 3, 32, 32)
    with record(model) as recording:
        model(images)[:, 2].sum().backward()
        own = recording.blocks[0].attention_gradient()
        recording.backward(model(images)[:, 2])
    torch.testing.assert_close(recording.blocks[0].attention_gradient(), own)


def test_checkpointing_and_frozen_parameters(small: MakeSmall) -> None:
    model = small().train()
    images = torch.randn(2, 3, 32, 32)
    with record(model) as recording:
        recording.backward(model(images)[:, 0])
        expected = [block.attention_gradient() for block in recording.blocks]
        model.set_grad_checkpointing()
        model.requires_grad_(False)
        recording.backward(model(images.requires_grad_())[:, 0])
    for block, gradient in zip(recording.blocks, expected, strict=True):
        torch.testing.assert_close(block.attention_gradient(), gradient)


def test_half_precision(small: MakeSmall) -> None:
    model = small().eval().bfloat16()
    with record(model) as recording:
        recording.backward(model(torch.randn(2, 3, 32, 32, dtype=torch.bfloat16))[:, 0])
    for block in recording.blocks:
        assert block.attention().dtype is torch.float32
        torch.testing.assert_close(
            block.attention().sum(3), torch.ones(block.attention().shape[:3])
        )
        assert block.attention_gradient().isfinite().all()


def test_differentiating_down_to_a_stage(small: MakeSmall) -> None:
    model = small().eval()
    with record(model) as recording:
        recording.backward(model(torch.randn(1, 3, 32, 32))[:, 0], stage=1)
    assert recording.stage(1)[0].attention_gradient().isfinite().all()
    with pytest.raises(PacavitError, match=r"no gradient arrived at the attention stages\.0"):
        recording.stage(0)[0].attention_gradient()


def test_a_pass_ends_after_the_attentions_of_a_stage(small: MakeSmall) -> None:
    model, images = small(depths=(1, 2, 1)).eval(), torch.randn(2, 3, 32, 32)
    ran: list[str] = []
    for name in ("stages.1.blocks.1.attn", "stages.1.blocks.1.mlp", "stages.2", "head"):
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
    found = record_until(model, images, 1)
    assert ran == ["stages.1.blocks.1.attn"]
    with record(model) as whole:
        model(images)
    for one, other in zip(found.stage(1), whole.stage(1), strict=True):
        torch.testing.assert_close(one.attention(), other.attention(), rtol=0, atol=0)
    assert len(found.blocks) == len(whole.blocks) - 1
    assert not any(tensor.requires_grad for b in found.blocks for tensor in tensors_of(b))
    first, expected = record_until(model, images, 0).blocks[0].attention(), whole.blocks[0]
    torch.testing.assert_close(first, expected.attention(), rtol=0, atol=0)
    assert model(images).shape == (2, 3)  # passes go to their end again


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("in_place", [False, True])
def test_compiled_networks_are_recorded(small: MakeSmall, in_place: bool, backend: str) -> None:
    model = small().eval()
    images = torch.randn(1, 3, 32, 32)
    with record(model) as recording, torch.no_grad():
        model(images)
        expected = [block.attention() for block in recording.blocks]
    compiled: Any = model
    if in_place:
        model.compile(backend=backend)
    else:
        compiled = torch.compile(model, backend=backend)
    with torch.no_grad():
        compiled(images)
        with record(compiled) as recording:
            compiled(images)
    for block, attention in zip(recording.blocks, expected, strict=True):
        torch.testing.assert_close(block.attention(), attention)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_gradients_of_compiled_networks_are_those_of_the_network(
    small: MakeSmall, backend: str
) -> None:
    model = small().eval()
    images = torch.randn(1, 3, 32, 32)
    with record(model) as expected:
        expected.backward(model(images)[:, 1])
    compiled: Any = torch.compile(model, backend=backend)
    compiled(images)
    with record(compiled) as recording:
        recording.backward(compiled(images)[:, 1])
    assert len(recording.blocks) == len(expected.blocks) == 5
    for block, other in zip(recording.blocks, expected.blocks, strict=True):
        torch.testing.assert_close(block.attention(), other.attention())
        torch.testing.assert_close(block.attention_gradient(), other.attention_gradient())
        assert block.attention_gradient().any()


def test_a_teachers_assignment_is_recorded(small: MakeSmall) -> None:
    model = small(clustering="teacher").eval()
    with record(model) as recording, torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    assert [block.clusters()[0].weights.shape[1] for block in recording.stage(0)] == [5, 5]


def test_timms_transformers_are_recorded() -> None:
    model = timm.create_model("deit_tiny_patch16_224", img_size=32, num_classes=3, depth=2).eval()
    with record(model) as recording:
        recording.backward(model(torch.randn(2, 3, 32, 32))[:, 0])
    assert len(recording.blocks) == 2
    for block in recording.blocks:
        assert block.attention().shape == block.attention_gradient().shape == (2, 3, 5, 5)
        with pytest.raises(PacavitError, match="has no clusters"):
            block.clusters()
    with pytest.raises(PacavitError, match="no stage with clusters"):
        recording.stage()


class Sharpened(QkvAttention):
    """An attention of another formula."""

    def forward(self, x: Any, grid: Any, state: Any, patch_mask: Any = None) -> Any:
        q, k, v = (layer(x)[:, None] for layer in (self.q, self.k, self.v))
        return self.proj((10 * q @ k.transpose(2, 3)).softmax(3) @ v)[:, 0], state


def test_what_cannot_be_recorded_is_an_error(small: MakeSmall) -> None:
    with pytest.raises(PacavitError, match="ResNet has no attention that can be recorded"):
        record(timm.create_model("resnet10t")).__enter__()
    model = small().eval()
    with record(model) as recording:
        with pytest.raises(PacavitError, match="no forward pass of PacaViT was recorded"):
            recording.blocks  # noqa: B018
        with torch.no_grad():
            logits = model(torch.randn(1, 3, 32, 32))
        with pytest.raises(PacavitError, match="has no gradients"):
            recording.backward(logits[:, 0])
    with pytest.raises(PacavitError, match="no gradient arrived"):
        recording.blocks[0].attention_gradient()
    with pytest.raises(PacavitError, match="stage 2 has no clusters; choose among: 0, 1"):
        recording.stage(2)
    blocks: Any = model.stages[0]
    blocks.blocks[1].attn = blocks.blocks[0].attn
    with record(model) as recording:
        model(torch.randn(1, 3, 32, 32))
    with pytest.raises(PacavitError, match="ran 2 times"):
        recording.blocks  # noqa: B018
    other = Sharpened(16, 1, stage=2, block=0)
    nn.init.normal_(other.q.weight)
    last: Any = model.stages[2]
    last.blocks[0].attn = other
    blocks.blocks = blocks.blocks[:1]
    with record(model) as recording:
        model(torch.randn(1, 3, 64, 64))
    with pytest.raises(PacavitError, match="another formula"):
        recording.blocks[-1].attention()


def test_memory_does_not_grow(small: MakeSmall) -> None:
    model = small().eval()
    images = torch.randn(1, 3, 16, 16)

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    counts: list[int] = []
    kept: list[Tensor] = []
    for call in range(200):
        with record(model) as recording:
            logits = model(images)
            recording.backward(logits[:, 0])
            recording.blocks[0].attention_gradient()
        kept[:] = [logits]  # callers may keep an answer, and with it its graph
        if call in (3, 199):
            counts.append(tensors())
    assert counts[0] == counts[1]
