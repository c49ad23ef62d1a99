"""Hooks that read attention modules: ours, and those of timm's plain vision transformers."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import timm.layers
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pacavit.attention import Attention, QkvAttention
from pacavit.errors import PacavitError
from pacavit.explain.core.readings import NoReading, QkvReading, Reading, RecordedReading
from pacavit.types import Assignment, AttentionRecord, Grid, StageState

__all__ = ["Tap", "find_taps"]

T = TypeVar("T", bound=nn.Module)


class Tap(ABC, Generic[T]):
    """Keeps tensors of one attention module while its network runs forward and backward.

    Args:
        name: the module's path in the network.
        module: the attention.

    Attributes:
        has_weights: the weights and their gradient can be read.
        differentiated: the tensor with respect to which scores are differentiated; part of the
            graph of the forward pass.
        runs: number of calls of the module in this pass.
        grid: height and width of its patches; None if the tokens are not a plain grid.
        assignment: the clusters of its stage.
    """

    has_weights = True

    def __init__(self, name: str, module: T) -> None:
        self.name = name
        self.module = module
        self.active = False
        self._handles: list[RemovableHandle] = []
        self.clear()

    def clear(self) -> None:
        """Forget the last pass."""
        self.runs = 0
        self.differentiated: Tensor | None = None
        self.grid: Grid | None = None
        self.assignment: Assignment | None = None
        self._outputs: dict[str, Tensor] = {}
        # A separate object, which the hook in the graph fills. If the hook referred to this tap,
        # which refers to the graph, the reference cycle would never be freed.
        self._arrived: dict[str, Tensor] = {}

    @property
    def arrived(self) -> Tensor | None:
        """The gradient at ``differentiated``; None before a backward pass."""
        return self._arrived.get("gradient")

    @abstractmethod
    def attach(self) -> None:
        """Start recording the module."""

    @abstractmethod
    def read(self) -> Reading:
        """The reading of the last pass."""

    def detach(self) -> None:
        """Restore the module, and release the graph."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self.differentiated is not None:
            self.differentiated = self.differentiated.detach()

    def _keep_differentiated(self, tensor: Tensor) -> None:
        """Keep a tensor of the graph and its gradient."""
        self.differentiated, arrived = tensor, self._arrived
        self.runs += 1
        if tensor.requires_grad:
            tensor.register_hook(
                lambda gradient: arrived.__setitem__("gradient", gradient.detach())
            )

    def _keep_output(self, name: str) -> None:
        """Keep the output of a submodule."""

        def keep(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
            if self.active:
                self._outputs[name] = output.detach()

        self._handles.append(getattr(self.module, name).register_forward_hook(keep))

    def _keep_input(self, name: str) -> None:
        """Keep the input of a submodule and its gradient."""

        def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if self.active:
                self._keep_differentiated(inputs[0])

        self._handles.append(getattr(self.module, name).register_forward_pre_hook(keep))


class _PacavitTap(Tap[T]):
    """An attention of this package, which is called with the grid and the state of its stage."""

    def clear(self) -> None:
        """Forget the last pass."""
        super().clear()
        self.patch_mask: Tensor | None = None

    def _keep_state(self, grid: Grid, state: StageState, patch_mask: Tensor | None) -> None:
        self.grid, self.patch_mask = grid, patch_mask
        self.assignment = None if state.assignment is None else state.assignment.detach()

    def _keep_arguments(self) -> None:
        """Keep the state that the module is called with."""
        signature = inspect.signature(self.module.forward)

        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self.active:
                given = signature.bind(*args, **kwargs).arguments
                self._keep_state(given["grid"], given["state"], given.get("patch_mask"))

        self._handles.append(self.module.register_forward_pre_hook(keep, with_kwargs=True))


class _QkvTap(_PacavitTap[QkvAttention]):
    """An attention with q, k, v and proj, read by hooks on these."""

    def attach(self) -> None:
        """Register the hooks."""
        self._keep_arguments()
        for name in ("q", "k", "v"):
            self._keep_output(name)
        self._keep_input("proj")

    def read(self) -> QkvReading:
        """Heads are split off: (B, N, C) -> (B, h, N, d)."""
        q, k, v = (
            self._outputs[name].unflatten(2, (self.module.num_heads, -1)).transpose(1, 2)
            for name in ("q", "k", "v")
        )
        clusters = self.assignment if self.module.uses_clusters else None
        assert self.differentiated is not None
        return QkvReading(
            name=self.name,
            q=q,
            k=k,
            v=v,
            valid=self.patch_mask if clusters is None else clusters.valid,
            scale=self.module.scale,
            keys=None if clusters is None else clusters.weights,
            mixed=self.differentiated.detach(),
            arrived=self.arrived,
        )


class _RecordedTap(_PacavitTap[Attention]):
    """An attention that implements ``recorded``, which runs instead of its ``forward``."""

    def clear(self) -> None:
        """Forget the last pass."""
        super().clear()
        self._record: AttentionRecord | None = None

    def attach(self) -> None:
        """Run ``recorded`` in place of ``forward``."""
        module = self.module

        def forward(
            x: Tensor, grid: Grid, state: StageState, patch_mask: Tensor | None = None
        ) -> tuple[Tensor, StageState]:
            tokens, new_state, record = module.recorded(x, grid, state, patch_mask)
            if self.active:
                self._keep_state(grid, state, patch_mask)
                self._keep_differentiated(record.weights)
                keys = None if record.keys is None else record.keys.detach()
                self._record = AttentionRecord(record.weights.detach(), keys)
            return tokens, new_state

        vars(module)["forward"] = forward

    def detach(self) -> None:
        """Run ``forward`` again."""
        super().detach()
        vars(self.module).pop("forward", None)

    def read(self) -> RecordedReading:
        """The record of the last pass."""
        assert self._record is not None
        return RecordedReading(self.name, self._record, self.arrived)


class _StateTap(_PacavitTap[Attention]):
    """An attention of which only the clusters of its stage are known."""

    has_weights = False

    def _keep_state(self, grid: Grid, state: StageState, patch_mask: Tensor | None) -> None:
        super()._keep_state(grid, state, patch_mask)
        self.runs += 1

    def attach(self) -> None:
        """Register the hook."""
        self._keep_arguments()

    def read(self) -> NoReading:
        """Nothing."""
        return NoReading(self.name, type(self.module).__name__)


class _TimmTap(Tap[timm.layers.Attention]):
    """The self-attention of timm's plain vision transformers, such as DeiT."""

    def attach(self) -> None:
        """Register the hooks."""
        for name in ("qkv", "q_norm", "k_norm"):
            self._keep_output(name)
        self._keep_input("norm")  # a norm or a gate may stand between the heads and proj

    def read(self) -> QkvReading:
        """(B, h, N, d), three times."""
        v = self._outputs["qkv"].unflatten(2, (3, self.module.num_heads, -1))[:, :, 2]
        assert self.differentiated is not None
        return QkvReading(
            name=self.name,
            q=self._outputs["q_norm"],
            k=self._outputs["k_norm"],
            v=v.transpose(1, 2),
            valid=None,
            scale=float(self.module.scale),
            keys=None,
            mixed=self.differentiated.detach(),
            arrived=self.arrived,
        )


def find_taps(model: nn.Module) -> list[Tap[Any]]:
    """A tap for every attention of a network, in the order of its modules.

    Raises:
        PacavitError: it has none that can be read.
    """
    taps: list[Tap[Any]] = []
    for name, module in model.named_modules():
        if isinstance(module, Attention):
            taps.append(_tap_of(name, module))
        elif isinstance(module, timm.layers.Attention):
            taps.append(_TimmTap(name, module))
    if not taps:
        raise PacavitError(
            f"{type(model).__name__} has no attention that can be recorded: neither this "
            "package's nor that of timm's plain vision transformers; choose a method without "
            "attention, such as grad_cam"
        )
    return taps


def _tap_of(name: str, module: Attention) -> Tap[Any]:
    if type(module).recorded is not Attention.recorded:
        return _RecordedTap(name, module)
    if isinstance(module, QkvAttention):
        return _QkvTap(name, module)
    return _StateTap(name, module)
