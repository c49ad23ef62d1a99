"""How attention modules are read by hooks: ours, and those of timm's plain transformers."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import timm.layers
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from pacavit.attention import Attention
from pacavit.errors import PacavitError
from pacavit.types import Assignment, Grid

__all__ = ["Tap", "find_taps"]

T = TypeVar("T", bound=nn.Module)


class Tap(ABC, Generic[T]):
    """What one attention module computes, kept while its network runs forward and backward.

    Args:
        name: the module's path in the network.
        module: the attention.

    Attributes:
        mixed: (B, N, C), the heads' answers side by side: what enters the projection. Belongs to
            the graph of the forward pass.
        runs: how often the module ran in this pass.
    """

    def __init__(self, name: str, module: T) -> None:
        self.name = name
        self.module = module
        self.active = False
        self._handles: list[RemovableHandle] = []
        self.clear()

    def clear(self) -> None:
        """Forget the last pass."""
        self.runs = 0
        self.mixed: Tensor | None = None
        self.grid: Grid | None = None
        self.assignment: Assignment | None = None
        self.valid: Tensor | None = None
        self._outputs: dict[str, Tensor] = {}
        # Its own object: the graph holds the hook that fills it, and must not hold this tap,
        # which holds the graph; such a circle is never freed.
        self._arrived: dict[str, Tensor] = {}

    @property
    def gradient(self) -> Tensor | None:
        """(B, N, C), with respect to ``mixed``; None before a backward pass."""
        return self._arrived.get("gradient")

    @property
    @abstractmethod
    def scale(self) -> float:
        """What the products of queries and keys are multiplied by."""

    @abstractmethod
    def heads(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, h, N, d), keys and values (B, h, K, d) of the last pass."""

    @abstractmethod
    def attach(self) -> None:
        """Register the hooks."""

    def detach(self) -> None:
        """Remove the hooks, and let go of the graph."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if self.mixed is not None:
            self.mixed = self.mixed.detach()

    def _keep_output(self, name: str) -> None:
        """Keep what a submodule answers."""

        def keep(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
            if self.active:
                self._outputs[name] = output.detach()

        self._handles.append(getattr(self.module, name).register_forward_hook(keep))

    def _keep_mixed(self, name: str) -> None:
        """Keep what enters a submodule, and the gradient that arrives there."""

        def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            if not self.active:
                return
            self.mixed, arrived = inputs[0], self._arrived
            self.runs += 1
            if self.mixed.requires_grad:
                self.mixed.register_hook(
                    lambda gradient: arrived.__setitem__("gradient", gradient.detach())
                )

        self._handles.append(getattr(self.module, name).register_forward_pre_hook(keep))


class _PacavitTap(Tap[Attention]):
    """An attention of this package: it exposes q, k, v and proj."""

    @property
    def scale(self) -> float:
        """1 / sqrt(d)."""
        return (self._outputs["q"].shape[2] / self.module.num_heads) ** -0.5

    def heads(self) -> tuple[Tensor, Tensor, Tensor]:
        """(B, N, C) and (B, K, C) -> (B, h, N, d), (B, h, K, d), (B, h, K, d)."""
        q, k, v = (
            self._outputs[name].unflatten(2, (self.module.num_heads, -1)).transpose(1, 2)
            for name in ("q", "k", "v")
        )
        return q, k, v

    def attach(self) -> None:
        """Register the hooks."""
        signature = inspect.signature(self.module.forward)

        def keep_state(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not self.active:
                return
            given = signature.bind(*args, **kwargs).arguments
            self.grid = given["grid"]
            assignment, mask = given["state"].assignment, given.get("patch_mask")
            if assignment is not None:
                weights, log_mass, valid = assignment
                self.assignment = Assignment(weights.detach(), log_mass.detach(), valid)
            self.valid = assignment.valid if self.module.uses_clusters else mask

        handle = self.module.register_forward_pre_hook(keep_state, with_kwargs=True)
        self._handles.append(handle)
        for name in ("q", "k", "v"):
            self._keep_output(name)
        self._keep_mixed("proj")


class _TimmTap(Tap[timm.layers.Attention]):
    """The self-attention of timm's plain vision transformers, such as DeiT."""

    @property
    def scale(self) -> float:
        """The module's own."""
        return float(self.module.scale)

    def heads(self) -> tuple[Tensor, Tensor, Tensor]:
        """(B, h, N, d), three times."""
        v = self._outputs["qkv"].unflatten(2, (3, self.module.num_heads, -1))[:, :, 2]
        return self._outputs["q_norm"], self._outputs["k_norm"], v.transpose(1, 2)

    def attach(self) -> None:
        """Register the hooks."""
        for name in ("qkv", "q_norm", "k_norm"):
            self._keep_output(name)
        self._keep_mixed("norm")  # a norm or a gate may stand between the heads and proj


def find_taps(model: nn.Module) -> list[Tap[Any]]:
    """A tap for every attention of a network, in the order of its modules.

    Raises:
        PacavitError: it has none that can be read.
    """
    taps: list[Tap[Any]] = []
    for name, module in model.named_modules():
        if isinstance(module, Attention):
            taps.append(_PacavitTap(name, module))
        elif isinstance(module, timm.layers.Attention):
            taps.append(_TimmTap(name, module))
    if not taps:
        raise PacavitError(
            f"{type(model).__name__} has no attention that can be recorded: neither this "
            "package's nor that of timm's plain vision transformers; choose a method without "
            "attention, such as grad_cam"
        )
    return taps
