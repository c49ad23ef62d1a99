"""The settings and limits of a server."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from pacavit.errors import PacavitError

__all__ = ["ServeOptions"]


@dataclass(frozen=True)
class ServeOptions:
    """Settings and limits, the same for all models.

    Attributes:
        device: where to compute: "auto", "cpu", "cuda" and so on.
        max_batch: largest number of images that the network gets at once.
        max_delay: milliseconds that an image waits for others of its batch.
        queue: largest number of images in work, per model; further ones are refused with 503.
        max_images: largest number of images in a request.
        max_body: largest body of a request in MB (10^6 bytes).
        max_pixels: largest image in megapixels (10^6 pixels).
        timeout: seconds that a request has to arrive, and then to be answered.
        reload: seconds between looks at whether the weights of a model changed; 0: never.
        token: that requests have to bring; None: none.
        hosts: values of the Host header, without the port, that are answered; empty: any.

    Raises:
        PacavitError: a value is out of range.
    """

    device: str = "auto"
    max_batch: int = field(default=16, metadata={"least": 1})
    max_delay: float = field(default=2.0, metadata={"least": 0})
    queue: int = field(default=256, metadata={"least": 1})
    max_images: int = field(default=64, metadata={"least": 1})
    max_body: float = field(default=32.0, metadata={"least": 0.001})
    max_pixels: float = field(default=50.0, metadata={"least": 0.001})
    timeout: float = field(default=30.0, metadata={"least": 0.1})
    reload: float = field(default=2.0, metadata={"least": 0})
    token: str | None = field(default=None, repr=False)
    hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for each in fields(self):
            least, value = each.metadata.get("least"), getattr(self, each.name)
            if least is not None and not (least <= value < math.inf):
                name = each.name.replace("_", "-")
                raise PacavitError(f"--{name} must be at least {least}, not {value}")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable()):
            raise PacavitError("the token must be printable ASCII characters")
        if self.token == "":
            raise PacavitError("the token is empty; give one of at least 16 characters")

    @property
    def body_bytes(self) -> int:
        """The largest body in bytes."""
        return int(self.max_body * 1e6)

    @property
    def image_pixels(self) -> int:
        """The largest number of pixels of an image."""
        return int(self.max_pixels * 1e6)
