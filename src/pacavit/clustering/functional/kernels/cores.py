"""Density-based clustering."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from pacavit.clustering.functional.kernels.products import triangle

__all__ = ["connected_cores", "reaches"]


@njit(parallel=True, cache=True, error_model="numpy")
def connected_cores(x, radius, min_samples, mask, labels):
    """Labels of density-based clusters of all images.

    Args:
        x: (B, N, C), 0 at padding.
        radius: (B,), squared.
        min_samples: points within the radius that make a core, itself included.
        mask: (B, N) bool, False at padding.
        labels: (B, N) int64, written; -1 for noise and padding.
    """
    images, number, width = x.shape
    for b in prange(images):
        points, columns = np.empty((number, width), x.dtype), np.empty((width, number), x.dtype)
        distances = np.empty((number, number), x.dtype)
        triangle(x[b], mask[b], points, columns, distances)
        _connect(distances, radius[b], min_samples, mask[b], labels[b])


@njit(cache=True, error_model="numpy")
def _connect(distances, radius, min_samples, mask, labels):
    points = len(mask)
    near = mask.astype(np.int32)  # of points within the radius
    for i in range(points):
        if mask[i]:
            row, own = distances[i], np.int32(0)
            for j in range(i):
                close = np.int32(mask[j] and row[j] <= radius)
                near[j] += close
                own += close
            near[i] += own
    # The root of a tree of cores is the first of them.
    root = np.full(points, points, np.int64)
    for i in range(points):
        if mask[i] and near[i] >= min_samples:
            root[i] = i
            for j in range(i):
                if distances[i, j] <= radius and root[j] < points:
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
                apart = distances[max(i, j), min(i, j)]
                if root[j] < points and apart <= radius and labels[j] < first:
                    first = labels[j]
            if first < number:
                labels[i] = first


@njit(cache=True, error_model="numpy")
def _find(root, i):
    while root[i] != i:
        root[i] = root[root[i]]
        i = root[i]
    return i


@njit(parallel=True, cache=True, error_model="numpy")
def reaches(x, mask, nth, reach):
    """Squared distances of all points to their n-th nearest, themselves included.

    Args:
        x: (B, N, C), 0 at padding.
        mask: (B, N) bool, False at padding.
        nth: 1 to N.
        reach: (B, N), written; infinite at padding, and where an image has fewer points.
    """
    images, number, width = x.shape
    for b in prange(images):
        points, columns = np.empty((number, width), x.dtype), np.empty((width, number), x.dtype)
        distances = np.empty((number, number), x.dtype)
        nearest = np.empty((number, nth), x.dtype)
        triangle(x[b], mask[b], points, columns, distances)
        nearest[:] = np.inf
        for i in range(number):
            for j in range(i + 1):
                if mask[b, i] and mask[b, j]:
                    _insert(nearest[i], distances[i, j])
                    if i != j:
                        _insert(nearest[j], distances[i, j])
        reach[b] = nearest[:, nth - 1]


@njit(cache=True, error_model="numpy")
def _insert(ordered, value):
    """Put a value in its place, and forget the largest."""
    k = len(ordered) - 1
    if value < ordered[k]:
        while k > 0 and ordered[k - 1] > value:
            ordered[k] = ordered[k - 1]
            k -= 1
        ordered[k] = value
