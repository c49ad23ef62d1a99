"""Attention, its gradient and the clusters of one forward pass, recorded by hooks.

::

    with record(model) as recording:
        logits = model(images)
        recording.backward(logits[:, 3])
    recording.blocks[0].attention()

The network needs no code for this, and is unchanged afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pacavit.errors import PacavitError
from pacavit.explain.core.geometry import find_pacavit
from pacavit.explain.core.readings import Reading
from pacavit.explain.core.taps import Tap, find_taps
from pacavit.types import Assignment, AttentionRecord, Grid

__all__ = [
    "BlockRecord",
    "Recording",
    "check_weights",
    "choose_stage",
    "record",
    "record_until",
    "uncompiled",
]


@dataclass(frozen=True)
class BlockRecord:
    """The record of one attention in the recorded pass. All tensors are detached.

    Attributes:
        name: path of the attention in the network.
        stage: index of its stage; None in networks without stages.
        block: index of its block in the stage, or in the network.
        grid: height and width of its patches; None if the tokens are not a plain grid.
        assignment: the clusters of its stage, (B, M, N); None if there are none.
        reading: the tensors from which its weights are computed.
    """

    name: str
    stage: int | None
    block: int
    grid: Grid | None
    assignment: Assignment | None
    reading: Reading

    def record(self) -> AttentionRecord:
        """The weights (B, h, N, K), and which patches each key stands for.

        Raises:
            PacavitError: the weights are not known.
        """
        return self.reading.record()

    def attention(self) -> Tensor:
        """The weights A, (B, h, N, K) in fp32 or better; rows sum to 1.

        Raises:
            PacavitError: the weights are not known.
        """
        return self.record().weights

    def attention_gradient(self) -> Tensor:
        """The exact gradient dy/dA, (B, h, N, K).

        Raises:
            PacavitError: no score was differentiated, or the weights are not known.
        """
        gradient = self.reading.gradient()
        if gradient is None:
            raise PacavitError(
                f"no gradient arrived at the attention {self.name}: call recording.backward(score) "
                "inside the recording, on a forward pass with gradients"
            )
        return gradient

    def clusters(self) -> tuple[Assignment, Grid]:
        """The assignment and the grid of its patches.

        Raises:
            PacavitError: the block has no clusters.
        """
        if self.assignment is None or self.grid is None:
            raise PacavitError(
                f"the attention {self.name} has no clusters; choose a stage that has some"
            )
        return self.assignment, self.grid


def choose_stage(clustered: Sequence[int], index: int | None) -> int:
    """The index of a stage with clusters: the given one, or the last.

    Raises:
        PacavitError: the stage has no clusters, or no stage has any.
    """
    if not clustered:
        raise PacavitError(
            "the model has no stage with clusters; methods such as rollout need none"
        )
    if index is None:
        return clustered[-1]
    if index not in clustered:
        known = ", ".join(map(str, clustered))
        raise PacavitError(f"stage {index} has no clusters; choose among: {known}")
    return index


class Recording:
    """Records of the attentions of a network in its last forward pass; see :func:`record`.

    Attributes:
        images: (B, 3, height, width), input of that pass; None before it.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model_name = type(model).__name__
        self._taps = find_taps(model)
        self.images: Tensor | None = None

    @property
    def blocks(self) -> tuple[BlockRecord, ...]:
        """One record per attention, from the first block to the last.

        Raises:
            PacavitError: no forward pass was recorded, or an attention ran more than once in it.
        """
        return tuple(_read(tap, number) for number, tap in enumerate(self._ran()))

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) of the images of that pass, in pixels; None before it."""
        return None if self.images is None else (self.images.shape[-2], self.images.shape[-1])

    @property
    def clustered_stages(self) -> tuple[int, ...]:
        """Stages in which attention goes to clusters, in order; empty where there are none."""
        stages = {block.stage for block in self.blocks if block.assignment is not None}
        return tuple(sorted(stage for stage in stages if stage is not None))

    def stage(self, index: int | None = None) -> tuple[BlockRecord, ...]:
        """The blocks of a stage with clusters, by default of the last one.

        Raises:
            PacavitError: there is no such stage, or it has no clusters.
        """
        index = choose_stage(self.clustered_stages, index)
        return tuple(block for block in self.blocks if block.stage == index)

    def backward(
        self, score: Tensor, *, stage: int | None = None, retain_graph: bool = False
    ) -> None:
        """Differentiate a score of every image with respect to the attentions only.

        ``.grad`` of the parameters is unchanged. ``backward()`` of a tensor inside the recording
        works too.

        Args:
            score: (B,), for example one column of the logits; each must depend on its image only.
            stage: stop at this stage, which is faster; None differentiates down to the first.
            retain_graph: keep the graph for another score.

        Raises:
            PacavitError: there is nothing to differentiate.
        """
        inputs = [
            tap.differentiated
            for tap in self._ran()
            if tap.has_weights and (stage is None or getattr(tap.module, "stage", stage) >= stage)
        ]
        tensors = [tensor for tensor in inputs if tensor is not None and tensor.requires_grad]
        if not score.requires_grad or len(tensors) < len(inputs):
            raise PacavitError(
                f"the forward pass of {self._model_name} has no gradients: call it inside the "
                "recording, without torch.no_grad, on images that require gradients if the "
                "parameters do not"
            )
        if tensors:  # hooks on them keep the gradients
            torch.autograd.grad(score.sum(), tensors, retain_graph=retain_graph)

    def _ran(self) -> list[Tap[Any]]:
        ran = [tap for tap in self._taps if tap.runs]
        if not ran:
            raise PacavitError(
                f"no forward pass of {self._model_name} was recorded: call the model itself "
                "inside the recording"
            )
        for tap in ran:
            if tap.runs > 1:
                raise PacavitError(
                    f"the attention {tap.name} ran {tap.runs} times in one pass; record networks "
                    "that run each block once"
                )
        return ran

    def _begin(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        images: Tensor = args[0] if args else next(iter(kwargs.values()))
        self.images = images.detach()
        for tap in self._taps:
            tap.clear()
            tap.active = True

    def _end(self, _: nn.Module, args: Any, output: Any) -> None:
        # Gradient checkpointing runs blocks again in the backward pass; that is not recorded.
        for tap in self._taps:
            tap.active = False


@contextmanager
def record(model: nn.Module) -> Iterator[Recording]:
    """Record the attentions of a network in the last forward pass inside the context.

    Works for all clusterings and attentions of this package, and for timm's plain vision
    transformers; in training and evaluation mode, in any precision, with gradient checkpointing. A
    compiled network runs uncompiled inside, because compiled programs skip hooks. The network is
    unchanged afterwards, and the recording stays readable.

    Args:
        model: the network itself, which has to be called; for a task, ``task.model``.

    Raises:
        PacavitError: the network has no attention that can be recorded.
    """
    root = uncompiled(model)
    recording = Recording(root)
    handles = [
        root.register_forward_pre_hook(recording._begin, with_kwargs=True),
        root.register_forward_hook(recording._end, always_call=True),
    ]
    try:
        for tap in recording._taps:
            tap.attach()
        with torch.compiler.set_stance("force_eager"):
            yield recording
    finally:
        for handle in handles:
            handle.remove()
        for tap in recording._taps:
            tap.active = False
            tap.detach()


def check_weights(model: nn.Module) -> None:
    """Check that the weights of all attentions of a network can be recorded.

    Raises:
        PacavitError: those of an attention cannot, or the network has no attention.
    """
    for tap in find_taps(model):
        if not tap.has_weights:
            tap.read().record()


class _ReachedError(Exception):
    """Ends a forward pass early, because further layers are not needed."""


@torch.no_grad()
def record_until(model: nn.Module, images: Tensor, stage: int) -> Recording:
    """Record a forward pass that ends after the last attention of a stage.

    Args:
        model: a PacaViT, or a network with one inside.
        images: (B, 3, height, width), normalized.
        stage: its index.

    Raises:
        PacavitError: the network has no PacaViT inside.
    """
    model = uncompiled(model)
    stages: Any = find_pacavit(model).stages

    def end(*_: Any) -> None:
        raise _ReachedError

    with record(model) as recording:
        # This hook is called after those of the recording, which were registered before.
        handle = stages[stage].blocks[-1].attn.register_forward_hook(end)
        try:
            model(images)
        except _ReachedError:
            pass
        finally:
            handle.remove()
    return recording


def uncompiled(model: nn.Module) -> nn.Module:
    """The network behind ``torch.compile``."""
    inner = getattr(model, "_orig_mod", model)
    assert isinstance(inner, nn.Module)
    return inner


def _read(tap: Tap[Any], number: int) -> BlockRecord:
    return BlockRecord(
        name=tap.name,
        stage=getattr(tap.module, "stage", None),
        block=getattr(tap.module, "block", number),
        grid=tap.grid,
        assignment=tap.assignment if getattr(tap.module, "uses_clusters", False) else None,
        reading=tap.read(),
    )
