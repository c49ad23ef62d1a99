"""Requests that are answered with an error of one line."""

from __future__ import annotations

import math

__all__ = ["Refusal", "overloaded"]


class Refusal(Exception):  # noqa: N818 (the server works as it should; the request does not)
    """A request that gets an error instead of an answer.

    Args:
        status: of HTTP.
        message: one line: what is wrong, and what to do.
        retry_after: seconds after which the same request may succeed; None: it will not.
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after = status, message, retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the response, without its type and length."""
        if self.status == 401:
            return {"www-authenticate": "Bearer"}
        if self.retry_after is None:
            return {}
        return {"retry-after": str(max(1, math.ceil(self.retry_after)))}


def overloaded(message: str, retry_after: float = 1) -> Refusal:
    """A refusal with 503 and Retry-After."""
    return Refusal(503, message, retry_after)
