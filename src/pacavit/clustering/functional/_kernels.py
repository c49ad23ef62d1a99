"""Loops over images that numba compiles for the CPU; imported by what calls them."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

__all__ = ["connected_cores", "nearest_neighbour_chains"]


@njit(parallel=True, cache=True)
def nearest_neighbour_chains(distances, mask, linkage, target, height):  # type: ignore[no-untyped-def]
    """Merge trees of all images.

    Args:
        distances: (B, N, N), squared for ward; used up.
        mask: (B, N) bool, False at padding.
        linkage: 0 ward, 1 average, 2 complete.
        target: (B, N) int64, written; see ``_agglomerative.merge``.
        height: (B, N), written.
    """
    for image in prange(len(distances)):
        _chain(distances[image], mask[image], linkage, target[image], height[image])


@njit(cache=True, inline="always")
def _join(linkage, first, second, apart, first_size, second_size, size):  # type: ignore[no-untyped-def]
    if linkage == 2:
        return max(first, second)
    if linkage == 1:
        return (first_size * first + second_size * second) / (first_size + second_size)
    total = (first_size + size) * first + (second_size + size) * second - size * apart
    return total / (first_size + second_size + size)


@njit(cache=True)
def _chain(distances, mask, linkage, target, height):  # type: ignore[no-untyped-def]
    # Muellner, "Modern hierarchical, agglomerative clustering algorithms", 2011: follow nearest
    # neighbours until two are each other's, merge them, go on from what is left of the chain.
    points = len(mask)
    size = np.zeros(points, distances.dtype)
    alive = np.empty(points, np.int64)  # the first points of clusters, in any order
    place = np.empty(points, np.int64)
    count = 0
    for i in range(points):
        target[i], height[i] = i, np.inf
        if mask[i]:
            size[i], alive[count], place[i] = 1, i, count
            count += 1
    chain = np.empty(points + 1, np.int64)
    length = 0
    while count > 1:
        if length == 0:
            chain[0], length = alive[0], 1
        while True:
            x = chain[length - 1]
            y, low = -1, np.inf
            if length > 1:
                y = chain[length - 2]
                low = distances[x, y]
            for k in range(count):
                i = alive[k]
                if distances[x, i] < low and i != x:
                    low, y = distances[x, i], i
            if length > 1 and y == chain[length - 2]:
                break
            if y < 0:  # not even infinity is below infinity
                y = alive[0] if alive[0] != x else alive[1]
            chain[length] = y
            length += 1
        length -= 2
        kept, gone = min(x, y), max(x, y)
        target[gone], height[gone] = kept, low
        count -= 1
        alive[place[gone]] = alive[count]
        place[alive[count]] = place[gone]
        for k in range(count):
            i = alive[k]
            if i != kept:
                joined = _join(
                    linkage,
                    distances[kept, i],
                    distances[gone, i],
                    low,
                    size[kept],
                    size[gone],
                    size[i],
                )
                distances[kept, i] = joined
                distances[i, kept] = joined
        size[kept] += size[gone]


@njit(parallel=True, cache=True)
def connected_cores(distances, radius, min_samples, mask, labels):  # type: ignore[no-untyped-def]
    """Labels of density-based clusters of all images.

    Args:
        distances: (B, N, N), squared.
        radius: (B,), squared.
        min_samples: points within the radius that make a core, itself included.
        mask: (B, N) bool, False at padding.
        labels: (B, N) int64, written; -1 for noise and padding.
    """
    for image in prange(len(distances)):
        _grow(distances[image], radius[image], min_samples, mask[image], labels[image])


@njit(cache=True)
def _grow(distances, radius, min_samples, mask, labels):  # type: ignore[no-untyped-def]
    points = len(mask)
    core = np.zeros(points, np.bool_)
    for i in range(points):
        labels[i] = -1
        if mask[i]:
            near = 0
            for j in range(points):
                near += mask[j] and distances[i, j] <= radius
            core[i] = near >= min_samples
    stack = np.empty(points, np.int64)
    number = 0
    for start in range(points):
        if not core[start] or labels[start] >= 0:
            continue
        labels[start], stack[0], height = number, start, 1
        while height:
            height -= 1
            i = stack[height]
            for j in range(points):
                if labels[j] < 0 and mask[j] and distances[i, j] <= radius:
                    labels[j] = number
                    if core[j]:
                        stack[height] = j
                        height += 1
        number += 1
