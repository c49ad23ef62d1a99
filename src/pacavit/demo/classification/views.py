"""HTML fragments and pictures of the demo for classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from pacavit.demo.classification.classified import Classified, attended, mask, patch_region
from pacavit.demo.views import Figure, jpeg, legend_colors, render
from pacavit.explain import METHODS, StageClusters, keep, mask_area, method_title, remove
from pacavit.explain.render import (
    cluster_colors,
    fitted_size,
    heatmap_picture,
    partition_picture,
    thumbnail,
)
from pacavit.utils.pictures import pillow_image, png_uri

__all__ = ["comparison", "galleries", "masks", "patch", "patch_picture", "top"]

_TILE = 160  # pixels of the longer side of a small picture
_CLUSTERS = 24  # of a stage, the most important ones
_ATTENDED = 12  # clusters of a patch


def top(explained: Classified) -> str:
    """The top classes with bars; the class that the maps explain is marked."""
    found = explained.explanation
    return render("top.html", {"rows": found.top, "explained": found.explained})


def masks(explained: Classified, method: str, threshold: str, fraction: float) -> str:
    """A map, its binary mask, and the picture with only the mask's area and without it."""
    inside = mask(explained, method, threshold, fraction)
    area = mask_area(inside, explained.placement)
    name, probability = explained.explanation.explained
    choice = explained.explanation.choice
    figures = [
        _map(explained, method, f"evidence for {name} ({probability:.1%})"),
        *(
            _map(explained, other, f"for comparison: {method_title(other)}")
            for other in choice.methods[1:]
            if other != method
        ),
        Figure(png_uri(inside), "binary mask", f"mask: {area:.1%} of the network's view"),
        Figure(jpeg(keep(explained.picture, inside)), "inside the mask", "kept"),
        Figure(jpeg(remove(explained.picture, inside)), "outside the mask", "removed"),
    ]
    values = {
        "figures": figures,
        "legend": legend_colors(),
        "note": choice.note,
        "command": str(choice.command) if choice.command else "",
    }
    return render("masks.html", values)


def _map(explained: Classified, method: str, caption: str) -> Figure:
    """A map over the picture."""
    return Figure(
        jpeg(heatmap_picture(explained.picture, explained.heatmap(method))),
        f"{method_title(method)} over the image",
        caption if METHODS.get(method).class_specific else "for any class",
    )


def galleries(explained: Classified) -> str:
    """The partition and the heatmaps of the clusters of every stage."""
    stages = [
        {
            "title": f"Stage {clusters.stage}",
            "note": _gallery_note(explained, clusters),
            "figures": [_partition(explained, clusters), *_heatmaps(explained, clusters)],
        }
        for clusters in explained.explanation.stages
    ]
    return render("galleries.html", {"stages": stages, "model": explained.model})


def patch(explained: Classified, stage: int, row: int, column: int) -> str:
    """The clusters that a patch attends to, with bars and heatmaps.

    Raises:
        PacavitError: there is no such stage or patch.
    """
    clusters = explained.clusters(stage)
    found = attended(clusters, row, column)
    colors = _css_colors(clusters)
    figures = [
        Figure(
            _tile(explained, clusters, cluster),
            f"heatmap of cluster {cluster}",
            f"cluster {cluster}",
            f"{fraction:.0%} of the attention",
            fraction / found[0][1],
            colors[cluster],
        )
        for cluster, fraction in found[:_ATTENDED]
    ]
    others = sum(fraction for _, fraction in found[_ATTENDED:])
    values = {"row": row + 1, "column": column + 1, "figures": figures, "others": others}
    return render("patch.html", values)


def patch_picture(explained: Classified, stage: int, row: int, column: int) -> Image.Image:
    """The partition of a stage over the image, with a frame around a patch."""
    clusters = explained.clusters(stage)
    picture = pillow_image(partition_picture(explained.picture, clusters, explained.placement))
    top_, left, height, width = patch_region(explained, clusters, row, column)
    frame = ImageDraw.Draw(picture)
    for grow, color in ((3, "black"), (2, "white"), (1, "white"), (0, "black")):
        box = (left - grow, top_ - grow, left + width + grow - 1, top_ + height + grow - 1)
        frame.rectangle(box, outline=color)
    return picture


def comparison(first: Classified, second: Classified) -> str:
    """Two models on the same image: classes, map, and the partition of every stage."""
    return render(
        "comparison.html", {"columns": [_column(first), _column(second)], "legend": legend_colors()}
    )


def _column(explained: Classified) -> Mapping[str, Any]:
    found = explained.explanation
    method = next(iter(found.maps))
    name = found.explained.name
    overlay = jpeg(heatmap_picture(explained.picture, explained.heatmap(method)))
    alt = f"{method_title(method)} of {explained.model}"
    figures = [Figure(overlay, alt, f"evidence for {name}")]
    for clusters in reversed(found.stages):
        caption = f"stage {clusters.stage}: {len(clusters.ranking())} clusters"
        figures.append(_partition(explained, clusters)._replace(caption=caption, note=""))
    return {
        "model": explained.model,
        "rows": found.top,
        "explained": found.explained,
        "figures": figures,
    }


def _gallery_note(explained: Classified, clusters: StageClusters) -> str:
    grid, number = clusters.grid, len(clusters.ranking())
    shown = f"{_CLUSTERS} of {number}" if number > _CLUSTERS else f"{number}"
    return (
        f"block {clusters.block}, {grid.height} x {grid.width} patches, {shown} clusters; the most "
        f"important for {explained.explanation.explained.name} first"
    )


def _partition(explained: Classified, clusters: StageClusters) -> Figure:
    small = partition_picture(explained.picture, clusters, explained.placement)
    return Figure(
        jpeg(_reduced(small)), f"partition of stage {clusters.stage}", "partition", "every cluster"
    )


def _heatmaps(explained: Classified, clusters: StageClusters) -> list[Figure]:
    importance = clusters.relative_importance()
    largest = float(importance.max().clamp(min=1e-30))
    colors = _css_colors(clusters)
    figures = []
    for cluster in clusters.ranking()[:_CLUSTERS]:
        fraction = float(importance[cluster])
        figures.append(
            Figure(
                _tile(explained, clusters, cluster),
                f"heatmap of cluster {cluster} of stage {clusters.stage}",
                f"cluster {cluster}",
                f"{fraction:.0%} of importance",
                fraction / largest,
                colors[cluster],
            )
        )
    return figures


def _tile(explained: Classified, clusters: StageClusters, cluster: int) -> str:
    """A small picture with the heatmap of a cluster, as a data URL."""
    picture = _reduced(explained.picture)
    placement = explained.placement.resized((picture.shape[1], picture.shape[2]))
    return jpeg(heatmap_picture(picture, clusters.heatmap(cluster, placement)))


def _reduced(picture: Tensor) -> Tensor:
    return thumbnail(picture, fitted_size((picture.shape[1], picture.shape[2]), _TILE))


def _css_colors(clusters: StageClusters) -> Sequence[str]:
    colors = (np.array(cluster_colors(clusters)) * 255).round().astype(int)
    return [f"rgb({red} {green} {blue})" for red, green, blue in colors.tolist()]
