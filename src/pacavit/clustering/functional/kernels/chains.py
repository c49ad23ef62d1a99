"""Agglomerative clustering by chains of nearest neighbors, compiled for the CPU."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from pacavit.clustering.functional.kernels.compiling import FAST, compiled, over_images
from pacavit.clustering.functional.kernels.products import distances as squared_distances
from pacavit.clustering.functional.kernels.products import mirror

__all__ = ["nearest_neighbor_chains"]


@over_images
def nearest_neighbor_chains(x, mask, linkage, target, height):
    """Merge trees of all images, in float64 as in scipy.

    Args:
        x: (B, N, C), 0 at padding.
        mask: (B, N) bool, False at padding.
        linkage: 0 ward, 1 average, 2 complete.
        target: (B, N) int64, written; see ``_agglomerative.merge``.
        height: (B, N) float64, written.
    """
    images, number, _ = x.shape
    for b in prange(images):
        distances = np.empty((number, _stride(number)))
        squared_distances(x[b], mask[b], distances)
        _complete(distances, linkage)
        _chain(distances, mask[b], linkage, target[b], height[b])


@compiled()
def _stride(number):
    """Columns to reserve for ``number``: an odd number of cache lines.

    With a power of two, the elements of one column would compete for a few lines of the cache.
    """
    lines = (number + 7) // 8
    return 8 * (lines + 1 - lines % 2)


@compiled()
def _complete(distances, linkage):
    """From the lower half of squared distances (N, N) to what a chain needs, in place.

    Numbers of at least 0, equal both ways, infinite on the diagonal and in further columns.
    """
    most = np.inf
    for i in range(len(distances)):
        row = distances[i]
        for j in range(i):
            row[j] = abs(min(most, row[j]))  # the bits of -0 are not in the order of numbers
            row[j] = row[j] if linkage == 0 else math.sqrt(row[j])
        row[i] = most
        for j in range(len(distances), len(row)):
            row[j] = most
    mirror(distances)


@compiled()
def _lowest(row, away):
    low = row[0] | away[0]
    for i in range(len(row)):
        low = min(low, row[i] | away[i])
    return low


@compiled()
def _first(row, away, low):
    """Where the lowest is; not by a search that ends there, which looks at one at a time."""
    kind = row.dtype.type
    none = kind(len(row))
    first = none
    for i in range(len(row)):
        first = min(first, kind(i) if row[i] | away[i] == low else none)
    return np.int64(first)


@compiled(fastmath=FAST)
def _chain(distances, mask, linkage, target, height):
    # Muellner, "Modern hierarchical, agglomerative clustering algorithms", 2011: follow nearest
    # neighbors until two are each other's, merge them, go on from what is left of the chain.
    points, most = len(mask), np.iinfo(np.int64).max
    # Floats from 0 are in the order of their bits, and a minimum of integers fills registers.
    bits = distances.view(np.int64)
    size = np.zeros(distances.shape[1])
    away = np.full(distances.shape[1], most, np.int64)  # all ones where there is no cluster
    alive, count = np.empty(points, np.int64), 0
    for i in range(points):
        target[i], height[i] = i, np.inf
        if mask[i]:
            size[i], away[i], alive[count] = 1, 0, i
            count += 1
    chain = np.empty(points + 1, np.int64)
    length = 0
    while count > 1:
        if length == 0:
            chain[0], length = alive[0], 1
        while True:
            x = chain[length - 1]
            row = bits[x]
            low = _lowest(row, away)
            if length > 1 and row[chain[length - 2]] <= low:
                y = chain[length - 2]
                break
            y = _first(row, away, low)
            if y == x:  # all are infinitely far
                y = alive[1] if alive[0] == x else alive[0]
            chain[length] = y
            length += 1
        length -= 2
        kept, gone = min(x, y), max(x, y)
        apart = distances[kept, gone]
        target[gone], height[gone] = kept, apart
        first = distances[kept]
        if apart < np.inf:  # else all are infinitely far, and infinity less infinity is no number
            _join(linkage, first, distances[gone], apart, size[kept], size[gone], size)
        first[kept] = np.inf
        size[kept] += size[gone]
        away[gone] = most
        left = 0
        for k in range(count):
            i = alive[k]
            alive[left] = i
            left += i != gone
            distances[i, kept] = first[i]
        count = left


@compiled(fastmath=FAST)
def _join(linkage, first, second, apart, first_size, second_size, size):
    """Lance-Williams: distances of two merged clusters to all, written over the first's.

    Rounding must not make one smaller than both that it comes from: a chain could then return to
    an earlier cluster, and grow for ever.
    """
    total = first_size + second_size
    for i in range(len(size)):
        one, other = first[i], second[i]
        if linkage == 2:
            found = max(one, other)
        elif linkage == 1:
            found = (first_size * one + second_size * other) / total
        else:
            near = (first_size + size[i]) * one + (second_size + size[i]) * other
            found = (near - size[i] * apart) / (total + size[i])
        first[i] = abs(max(found, min(one, other)))
