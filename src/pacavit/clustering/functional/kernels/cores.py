"""Density-based clustering, compiled for the CPU."""

from __future__ import annotations

import numpy as np
from numba import prange

from pacavit.clustering.functional.kernels.compiling import FAST, compiled, over_images
from pacavit.clustering.functional.kernels.products import (
    center,
    differences,
    distances,
    pair,
    products,
    rounding,
    transpose,
)

__all__ = ["connected_cores", "reaches"]


@over_images
def connected_cores(x, radius, min_samples, mask, labels):
    """Labels of density-based clusters of all images.

    Args:
        x: (B, N, C), 0 at padding.
        radius: (B,) float64, squared.
        min_samples: points within the radius that make a core, itself included.
        mask: (B, N) bool, False at padding.
        labels: (B, N) int64, written; -1 for noise and padding.
    """
    images, number, _ = x.shape
    for b in prange(images):
        near = np.empty((number, number), np.bool_)
        _neighbors(x[b], mask[b], radius[b], near)
        _connect(near, min_samples, mask[b], labels[b])


@compiled(fastmath=FAST)
def _neighbors(x, mask, radius, near):
    """Write to the lower half of ``near`` (N, N) which points are within the radius of which."""
    number, width = x.shape
    points, columns = np.empty((number, width), x.dtype), np.empty((width, number), x.dtype)
    center(x, mask, points, columns)
    kind, info = x.dtype.type, np.finfo(x.dtype)
    squares = np.zeros(number, x.dtype)
    for c in range(width):
        column = columns[c]
        for i in range(number):
            squares[i] += column[i] * column[i]
    limit, slack = kind(radius), kind(rounding(x, width))
    least = kind(info.eps) * limit + kind(width * info.tiny)
    raw, exact = np.empty((width, 0)), np.empty(number)
    block = np.empty((16, number), x.dtype)
    for low in range(0, number, 16):
        high = min(low + 16, number)
        products(points[low:high], columns, high, block)
        for i in range(low, high):
            row, own, close, doubts = block[i - low], squares[i], near[i], 0
            for j in range(i):
                both = own + squares[j]
                apart = both - (row[j] + row[j])
                close[j] = apart <= limit
                doubts += 0 if abs(apart - limit) > slack * both + least else 1
            close[i] = True
            if doubts > 0 and mask[i]:
                if raw.shape[1] == 0:
                    raw = np.empty((width, number))
                    transpose(x, raw)
                differences(raw, i, i, exact)
                for j in range(i):
                    close[j] = exact[j] <= radius


@compiled()
def _connect(near, min_samples, mask, labels):
    points = len(mask)
    count = mask.astype(np.int32)  # of points within the radius
    for i in range(points):
        if mask[i]:
            row, own = near[i], np.int32(0)
            for j in range(i):
                close = np.int32(mask[j] and row[j])
                count[j] += close
                own += close
            count[i] += own
    # The root of a tree of cores is the first of them.
    root = np.full(points, points, np.int64)
    for i in range(points):
        if mask[i] and count[i] >= min_samples:
            root[i] = i
            for j in range(i):
                if near[i, j] and root[j] < points:
                    one, other = _find(root, i), _find(root, j)
                    root[max(one, other)] = min(one, other)
    number = 0
    for i in range(points):
        labels[i] = -1
        if root[i] == i:
            labels[i] = number
            number += 1
        elif root[i] < points:
            labels[i] = labels[root[i]]  # the root's label is known, as it comes first
    for i in range(points):  # what is near a core without being one: of clusters, the first
        if mask[i] and root[i] == points:
            first = number
            for j in range(points):
                if root[j] < points and near[max(i, j), min(i, j)] and labels[j] < first:
                    first = labels[j]
            if first < number:
                labels[i] = first


@compiled()
def _find(root, i):
    while root[i] != i:
        root[i] = root[root[i]]
        i = root[i]
    return i


@over_images
def reaches(x, mask, nth, reach):
    """Squared distances of all points to their n-th nearest, themselves included.

    Args:
        x: (B, N, C), 0 at padding.
        mask: (B, N) bool, False at padding.
        nth: at least 1.
        reach: (B, N) float64, written; infinite at padding, and where an image has fewer points.
    """
    images, number, _ = x.shape
    for b in prange(images):
        squared, nearest = np.empty((number, number)), np.empty((number, nth))
        which = np.empty((number, nth), np.int64)
        distances(x[b], mask[b], squared)
        nearest[:] = np.inf
        for i in range(number):
            for j in range(i + 1):
                if mask[b, i] and mask[b, j]:
                    apart = squared[i, j]
                    if apart < nearest[i, nth - 1]:
                        _insert(nearest[i], which[i], apart, j)
                    if i != j and apart < nearest[j, nth - 1]:
                        _insert(nearest[j], which[j], apart, i)
        for i in range(number):
            # The last bit matters: with this as its radius, the n-th nearest is to be within it.
            known = nearest[i, nth - 1] < np.inf
            reach[b, i] = pair(x[b], i, which[i, nth - 1]) if known else np.inf


@compiled()
def _insert(ordered, which, value, index):
    """Put a value and its index where they belong, and drop the largest, which is larger."""
    k = len(ordered) - 1
    while k > 0 and ordered[k - 1] > value:
        ordered[k], which[k] = ordered[k - 1], which[k - 1]
        k -= 1
    ordered[k], which[k] = value, index
