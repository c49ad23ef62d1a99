"""Which images of a split a report shows."""

from __future__ import annotations

import hashlib

__all__ = ["NUM_EXAMPLES", "spread"]

NUM_EXAMPLES = 4
"""Images of each kind: with the lowest scores, with the highest, and any."""


def spread(index: int) -> float:
    """A number in 0..1 that looks random and depends on the position alone."""
    digest = hashlib.blake2b(str(index).encode(), digest_size=6).digest()
    return int.from_bytes(digest) / 2**48
