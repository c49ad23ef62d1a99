"""Numbers as base64 text, for the scripts of pages."""

from __future__ import annotations

import math
import re
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor

from pacavit.explain.render import COLORMAP, fitted_size
from pacavit.explain.segmentation import HeadClusters
from pacavit.utils.layout import enlarge
from pacavit.utils.pictures import base64_text

__all__ = [
    "bounded",
    "cluster_weights",
    "file_part",
    "on_grid",
    "palette",
    "plain_bytes",
    "relative_bytes",
]

_SIDE = 112  # about the values of the longer side of a map
_CLUSTER_BYTES = 400_000  # of all cluster heatmaps of an image
_NAME = 60  # characters


def palette() -> str:
    """The colors of maps, from 0 to the largest value, for the script of an explorer."""
    colors = (mpl.colormaps[COLORMAP](np.arange(256))[:, :3] * 255).round().astype(np.uint8)
    return base64_text(colors.tobytes())


def bounded(found: Tensor) -> Tensor:
    """A map (height, width) of the network's input, subsampled to the size that a page needs."""
    step = max(1, max(found.shape) // _SIDE)
    return found[step // 2 :: step, step // 2 :: step]


def relative_bytes(rows: Tensor) -> str:
    """(rows, n) >= 0 -> base64 of n bytes per row, in which 255 is the largest value of the row."""
    largest = rows.amax(1, keepdim=True).clamp(min=1e-30)
    return base64_text((rows / largest * 255).round().numpy().astype(np.uint8).tobytes())


def plain_bytes(values: Tensor) -> str:
    """Values 0..255 as base64, one byte each."""
    return base64_text(values.to(torch.uint8).contiguous().numpy().tobytes())


def on_grid(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """(K, h, w) -> the values at the centers of the cells: (K, *grid)."""
    return enlarge(maps[None], grid)[0]


def cluster_weights(clusters: HeadClusters, image_size: tuple[int, int]) -> dict[str, Any]:
    """The heatmaps of a head's clusters, with the grid of their cells."""
    count = len(clusters.weights)
    longer = min(_SIDE, max(8, math.isqrt(_CLUSTER_BYTES // count)))
    cells = fitted_size(image_size, min(longer, max(clusters.weights.shape[1:])))
    return {
        "size": cells,
        "weightBytes": relative_bytes(on_grid(clusters.weights, cells).flatten(1)),
    }


def file_part(name: str) -> str:
    """The name of a class as a part of the name of a file."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:_NAME]
