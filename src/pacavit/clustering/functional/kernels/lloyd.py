"""Lloyd's algorithm, compiled for the CPU."""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from pacavit.clustering.functional.kernels.compiling import FAST, compiled, over_images
from pacavit.clustering.functional.kernels.products import center, products, rounding

__all__ = ["lloyd"]


@over_images
def lloyd(x, centers, mask, max_iter, tol, labels, inertia, rounds):
    """Lloyd's algorithm on all images; see ``_kmeans.lloyd``.

    Args:
        x: (B, N, C), 0 at padding.
        centers: (B, M, C) float64, to begin with; changed.
        mask: (B, N) bool, False at padding.
        max_iter: iterations at most.
        tol: the squared shift, in variances, at which an image is finished; below 0: never.
        labels: (B, N) int64, written.
        inertia: (B,) float64, written.
        rounds: (B,) int64, iterations run; written.
    """
    for b in prange(len(x)):
        rounds[b] = _lloyd(x[b], centers[b], mask[b], max_iter, tol, labels[b])
        inertia[b] = 0
        for i in range(len(mask[b])):
            if mask[b, i]:
                inertia[b] += _apart(x[b, i], centers[b, labels[b, i]])


@compiled(fastmath=FAST)
def _apart(point, center):
    """The squared distance of two points (C,), by differences in float64."""
    total = 0.0
    for c in range(len(point)):
        step = np.float64(point[c]) - np.float64(center[c])
        total += step * step
    return total


@compiled(fastmath=FAST)
def _lloyd(x, centers, mask, max_iter, tol, labels):
    points, width = x.shape
    clusters = len(centers)
    around, columns = np.empty((points, width), x.dtype), np.empty((width, points), x.dtype)
    mean = center(x, mask, around, columns)
    norms, scores = np.zeros(points, x.dtype), np.empty((clusters, points), x.dtype)
    count, variance = mask.sum(), 0.0
    for c in range(width):
        column, offset = columns[c], 0.0
        for i in range(points):
            norms[i] += column[i] * column[i]
            offset += column[i]
        variance -= (offset / count) ** 2  # the mean is rounded
    for i in range(points):
        variance += norms[i] / count
        norms[i] = math.sqrt(norms[i])
    limit = tol * variance / width if tol >= 0 else -1.0
    label, before = np.zeros(points, np.int32), np.full(points, -1, np.int32)
    size, total = np.empty(clusters), np.empty((clusters, width))
    settled, rounds = False, 0
    while rounds < max_iter:
        rounds += 1
        _assign(x, columns, mean, norms, mask, centers, scores, label)
        same = True
        size[:] = 0
        total[:] = 0
        for i in range(points):
            if mask[i]:
                same = same and label[i] == before[i]
                before[i] = label[i]
                size[label[i]] += 1
        for i in range(points):  # without a condition: it would make this four times as slow
            own, point = total[label[i]], x[i]
            for c in range(width):
                own[c] += point[c]
        moved = size.min() == 0 and _refill(x, centers, mask, label, size, total)
        largest = np.argmax(size)
        shift = 0.0
        for m in range(clusters):
            source = m if size[m] > 0 else largest
            own, middle, members = total[source], centers[m], size[source]
            for c in range(width):
                mid = own[c] / members
                step = mid - middle[c]
                shift += step * step
                middle[c] = mid
        settled = same and not moved
        if limit >= 0 and (settled or shift <= limit):
            break
    if limit < 0 or not settled:
        _assign(x, columns, mean, norms, mask, centers, scores, label)
    labels[:] = label
    return rounds


@compiled(fastmath=FAST)
def _assign(x, columns, mean, norms, mask, centers, scores, label):
    """Write the nearest centers, of equal ones the first.

    Args:
        x: (N, C), 0 at padding.
        columns: (C, N), the same around ``mean`` (C,).
        mean: see there.
        norms: (N,), of the columns.
        mask: (N,) bool.
        centers: (M, C) float64.
        scores: (M, N), buffer, overwritten.
        label: (N,), written.
    """
    clusters, points = scores.shape
    width = len(mean)
    kind, info = columns.dtype.type, np.finfo(columns.dtype)
    around, half = np.empty((clusters, width), columns.dtype), np.zeros(clusters, columns.dtype)
    for m in range(clusters):
        row, own = around[m], centers[m]
        for c in range(width):
            row[c] = own[c] - mean[c]
            half[m] += row[c] * row[c]
        half[m] *= kind(0.5)
    products(around, columns, points, scores)
    best, second = scores[0], np.full(points, -np.inf, columns.dtype)
    label[:] = 0
    for i in range(points):
        best[i] -= half[0]
    for m in range(1, clusters):
        score, own = scores[m], half[m]
        for i in range(points):
            value = score[i] - own
            nearer = value > best[i]
            second[i] = best[i] if nearer else max(second[i], value)
            best[i] = value if nearer else best[i]
            label[i] = m if nearer else label[i]
    slack, least = kind(rounding(columns, width)), kind(width * info.tiny)
    longest = kind(math.sqrt(2 * half.max()))
    for i in range(points):
        reach = norms[i] + longest
        if mask[i] and not best[i] - second[i] > slack * reach * reach + least:
            label[i] = _nearest(x[i], centers)


@compiled()
def _nearest(point, centers):
    first, low = 0, np.inf
    for m in range(len(centers)):
        apart = _apart(point, centers[m])
        if apart < low:
            first, low = m, apart
    return first


@compiled()
def _refill(x, centers, mask, label, size, total):
    """Give every empty cluster one of the points farthest from their centers."""
    points, width = x.shape
    far = np.empty(points)
    for i in range(points):
        far[i] = _apart(x[i], centers[label[i]]) if mask[i] else -1
    if far.max() <= 0:
        return False
    for m in np.flatnonzero(size == 0):
        i = np.argmax(far)
        if far[i] < 0:
            break
        far[i] = -1
        size[label[i]] -= 1
        size[m] = 1
        for c in range(width):
            total[label[i], c] -= x[i, c]
            total[m, c] = x[i, c]
    return True
