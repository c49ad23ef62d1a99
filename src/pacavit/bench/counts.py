"""Parameters and multiply-accumulates by image size, and which sizes a network takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from pacavit.bench.candidates import Candidate
from pacavit.bench.results import failure
from pacavit.errors import PacavitError
from pacavit.models import count_macs

__all__ = ["Counts", "count"]

_USUAL = (224, 256, 32)  # sides that most networks take


class Counts(NamedTuple):
    """What a network costs for one image, whatever computes it.

    Attributes:
        parameters: of the network, by side of the image: position embeddings may depend on it.
        macs: multiply-accumulates, by side of the image.
        error: why it cannot be built or run; then the other two are empty.
    """

    parameters: dict[int, int]
    macs: dict[int, int]
    error: str | None = None


def count(candidate: Candidate, sizes: Sequence[int]) -> Counts:
    """Count a candidate at several sizes; without computing, where the network allows it.

    Raises:
        PacavitError: the network takes other sizes, but not all of these.
    """
    found = Counts({}, {})
    for size in sizes:
        try:
            found.parameters[size], found.macs[size] = _count(candidate, size)
        except Exception as error:
            reason = failure(error)
            able = [other for other in (*sizes, *_USUAL) if other != size]
            taken = [other for other in dict.fromkeys(able) if _takes(candidate, other)]
            if not taken:
                return Counts({}, {}, reason)
            raise PacavitError(
                f"{candidate.name} cannot take images of {size} x {size} pixels ({reason}), but "
                f"of {' or '.join(map(str, taken))}; give other --sizes, or leave the model out"
            ) from error
    return found


def _takes(candidate: Candidate, size: int) -> bool:
    try:
        _count(candidate, size)
    except Exception:
        return False
    return True


def _count(candidate: Candidate, size: int) -> tuple[int, int]:
    """Parameters and MACs at a size; raises what the network raises."""
    try:
        with torch.device("meta"):
            network = candidate.build(size).to("meta")
        return _parameters(network), count_macs(network, (size, size))
    except Exception:
        # Clusterings whose kernels need values, and errors: the network itself has the last word.
        network = candidate.build(size)
        return _parameters(network), count_macs(network, (size, size))


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
