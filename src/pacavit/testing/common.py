"""What the checks share."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

__all__ = ["check_parameters", "say"]


def check_parameters(module: nn.Module) -> None:
    """Check that every parameter has got a finite gradient."""
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, f"parameter {name} gets no gradient"
        assert parameter.grad.isfinite().all(), f"gradient of {name} is not finite"


def say(requirement: str) -> Callable[[str], str]:
    """Prefix torch's comparison report with the requirement that is violated."""
    return lambda report: f"{requirement}\n{report}"
