"""A measured mean, and how sure it is."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Interval"]


class Interval(NamedTuple):
    """A mean over images and its 95 % interval, for other images of this kind.

    Attributes:
        mean: over the images that have a value.
        low: lower end of the interval.
        high: its upper end.
    """

    mean: float
    low: float
    high: float

    @property
    def tie(self) -> bool:
        """Of a difference: the interval holds 0."""
        return self.low <= 0 <= self.high

    def as_difference(self, digits: int) -> str:
        """A difference in words, with so many digits after the point."""
        mean, low, high = (f"{value:+.{digits}f}" for value in self)
        return f"{mean} ({low} to {high}){', a tie' if self.tie else ''}"
