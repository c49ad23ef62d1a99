"""Lloyd's algorithm."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from pacavit.clustering.functional.kernels.products import FAST, centre, products

__all__ = ["lloyd"]


@njit(parallel=True, cache=True, error_model="numpy")
def lloyd(x, centers, mask, max_iter, tol, labels, inertia, rounds):
    """Lloyd's algorithm on all images; see ``_kmeans.lloyd``.

    Args:
        x: (B, N, C), 0 at padding.
        centers: (B, M, C) to begin with; changed.
        mask: (B, N) bool, False at padding.
        max_iter: rounds at most.
        tol: the squared shift, in variances, at which an image is finished; below 0: never.
        labels: (B, N) int64, written.
        inertia: (B,), written.
        rounds: (B,) int64, written.
    """
    images, number, width = x.shape
    for b in prange(images):
        points, columns = np.empty((number, width), x.dtype), np.empty((width, number), x.dtype)
        mean = centre(x[b], mask[b], points, columns)
        limit = tol * _squares(points) / (mask[b].sum() * width) if tol >= 0 else -1.0
        centers[b] -= mean
        rounds[b] = _lloyd(points, columns, centers[b], mask[b], max_iter, limit, labels[b])
        inertia[b] = _inertia(points, centers[b], mask[b], labels[b])
        centers[b] += mean


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _squares(points):
    total = 0.0
    for i in range(len(points)):
        row, own = points[i], points.dtype.type(0)
        for c in range(len(row)):
            own += row[c] * row[c]
        total += own
    return total


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _lloyd(x, columns, centers, mask, max_iter, limit, labels):
    points, width = x.shape
    clusters = len(centers)
    label, before = np.zeros(points, np.int32), np.full(points, -1, np.int32)
    scores = np.empty((clusters, points), x.dtype)
    size, total = np.empty(clusters, x.dtype), np.empty((clusters, width), x.dtype)
    settled, rounds = False, 0
    while rounds < max_iter:
        rounds += 1
        _assign(columns, centers, scores, label)
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
            own, center, members = total[source], centers[m], size[source]
            apart = center.dtype.type(0)
            for c in range(width):
                mean = own[c] / members
                step = mean - center[c]
                apart += step * step
                center[c] = mean
            shift += apart
        settled = same and not moved
        if limit >= 0 and (settled or shift <= limit):
            break
    if limit < 0 or not settled:
        _assign(columns, centers, scores, label)
    labels[:] = label
    return rounds


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _assign(columns, centers, scores, label):
    """Nearest centres; of equal ones the first."""
    clusters, points = scores.shape
    products(centers, columns, points, scores)
    best = scores[0]
    for m in range(clusters):
        score, center = scores[m], centers[m]
        half = center.dtype.type(0)
        for c in range(len(center)):
            half += center[c] * center[c]
        half *= center.dtype.type(0.5)
        for i in range(points):
            score[i] -= half
        if m == 0:
            label[:] = 0
            continue
        for i in range(points):
            nearer = score[i] > best[i]
            best[i] = score[i] if nearer else best[i]
            label[i] = m if nearer else label[i]


@njit(cache=True, error_model="numpy")
def _refill(x, centers, mask, label, size, total):
    """Give every empty cluster one of the points farthest from their centres."""
    points, width = x.shape
    far = np.empty(points, x.dtype)
    for i in range(points):
        far[i] = 0 if mask[i] else -1
        if mask[i]:
            for c in range(width):
                apart = x[i, c] - centers[label[i], c]
                far[i] += apart * apart
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


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _inertia(x, centers, mask, labels):
    inertia = 0.0
    for i in range(len(x)):
        point, center, apart = x[i], centers[labels[i]], x.dtype.type(0)
        for c in range(len(point)):
            step = point[c] - center[c]
            apart += step * step
        inertia += apart if mask[i] else 0
    return inertia
