"""Networks that PaCa-ViT is compared with and that timm does not have; for measurements only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from torch import nn

from pacavit.bench.peers.focal import FocalTransformer
from pacavit.bench.peers.hugging_face import cvt, pvt
from pacavit.bench.peers.t2t import T2tVit

__all__ = ["HUGGING_FACE", "PEERS"]

_Build = Callable[[int], nn.Module]


def _any_size(build: Callable[..., nn.Module], *arguments: object) -> _Build:
    """A function of the size of the image, for a network that takes any."""
    return lambda _: build(*arguments)


HUGGING_FACE: Mapping[str, _Build] = MappingProxyType(
    {
        "pvt_tiny": partial(pvt, (2, 2, 2, 2)),
        "pvt_small": partial(pvt, (3, 4, 6, 3)),
        "pvt_medium": partial(pvt, (3, 4, 18, 3)),
        "pvt_large": partial(pvt, (3, 8, 27, 3)),
        "cvt_13": _any_size(cvt, (1, 2, 10)),
        "cvt_21": _any_size(cvt, (1, 4, 16)),
    }
)
"""Networks of the library transformers, which the extra ``peers`` installs."""

PEERS: Mapping[str, _Build] = MappingProxyType(
    {
        "t2t_vit_t_14": partial(T2tVit, 384, 14, 6),
        "t2t_vit_t_19": partial(T2tVit, 448, 19, 7),
        "t2t_vit_t_24": partial(T2tVit, 512, 24, 8),
        "focal_tiny": _any_size(FocalTransformer, 96, (2, 2, 6, 2), (3, 6, 12, 24)),
        "focal_small": _any_size(FocalTransformer, 96, (2, 2, 18, 2), (3, 6, 12, 24)),
        "focal_base": _any_size(FocalTransformer, 128, (2, 2, 18, 2), (4, 8, 16, 32)),
        **HUGGING_FACE,
    }
)
"""By name, a function from the side of the square image in pixels to a network of 1,000 classes
with random weights."""
