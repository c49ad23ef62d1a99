"""Published figures of the networks that the paper compares, and sets of networks to measure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import NamedTuple

from pacavit.errors import UnknownNameError

__all__ = ["PUBLISHED_SIZE", "PublishedNetwork", "differs", "peer_set", "published_networks"]

PUBLISHED_SIZE = 224
"""Side of the images in pixels that published figures are for."""

_TOLERANCE = 0.03

# PaCa-ViT-S with other attentions in all stages.
_ATTENTIONS: Mapping[str, str] = MappingProxyType(
    {
        "pacavit_small,num_clusters=100": "PaCa, 100 clusters in all stages",
        "pacavit_small": "PaCa, full in the last stage",
        "pacavit_small,attention=full": "full",
        "pacavit_small,attention=spatial_reduction": "spatial reduction (PVTv2)",
        "pacavit_small,attention=pooled": "pooled (PVTv2-li)",
        "pacavit_small,attention=windows": "windows (Swin)",
        "pacavit_small,attention=linformer": "Linformer",
        "pacavit_small,attention=big_bird": "BigBird",
    }
)


class PublishedNetwork(NamedTuple):
    """What was published of a network; numbers are texts, with the digits that were published.

    Attributes:
        name: that ``pacavit bench`` takes.
        label: the usual name.
        parameters: in millions.
        macs: multiply-accumulates at 224 pixels, in billions.
        top1: accuracy on ImageNet's validation images in percent, trained on ImageNet-1k at 224
            pixels.
        source: address of the paper or repository.
        reasons: why "parameters" or "macs" differ from what is counted, where that is known.
    """

    name: str
    label: str
    parameters: str
    macs: str
    top1: str
    source: str
    reasons: Mapping[str, str]


@cache
def published_networks() -> Mapping[str, PublishedNetwork]:
    """The networks of the paper's table on ImageNet, by name."""
    text = (resources.files("pacavit.bench") / "published.json").read_text("utf-8")
    networks = (PublishedNetwork(**entry) for entry in json.loads(text))
    return MappingProxyType({network.name: network for network in networks})


def differs(published: str, counted: float) -> bool:
    """Whether a count differs from a published one by more than its rounding and 3 %."""
    digits = len(published.partition(".")[2])
    tolerance = max(0.5 * 10**-digits, _TOLERANCE * float(published))
    return abs(float(published) - counted) > tolerance


def peer_set(name: str) -> Mapping[str, str]:
    """The labels of a set of networks by name: "paper" or "attentions".

    Raises:
        UnknownNameError: there is no such set.
    """
    if name == "attentions":
        return _ATTENTIONS
    if name != "paper":
        raise UnknownNameError("set of peers", name, ("attentions", "paper"))
    return {each.name: each.label for each in published_networks().values()}
