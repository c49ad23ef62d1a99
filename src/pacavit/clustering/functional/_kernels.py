"""Loops over images that numba compiles for the CPU; imported by what calls them."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

__all__ = ["connected_cores", "fit_mixtures", "lloyd", "nearest_neighbour_chains"]

# Sums in any order, so that they fill the registers of the processor; NaN and infinity stay.
_FAST = {"contract", "reassoc", "nsz", "arcp"}


@njit(parallel=True, cache=True, error_model="numpy")
def lloyd(x, centers, mask, max_iter, limit, labels, inertia, rounds):
    """Lloyd's algorithm on all images; see ``_kmeans.lloyd``.

    Args:
        x: (B, N, C).
        centers: (B, M, C) to begin with; changed.
        mask: (B, N) bool, False at padding.
        max_iter: rounds at most.
        limit: (B,), the squared shift at which an image is finished; below 0: never.
        labels: (B, N) int64, written.
        inertia: (B,), written.
        rounds: (B,) int64, written.
    """
    for b in prange(len(x)):
        rounds[b] = _lloyd(x[b], centers[b], mask[b], max_iter, limit[b], labels[b])
        inertia[b] = _inertia(x[b], centers[b], mask[b], labels[b])


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _lloyd(x, centers, mask, max_iter, limit, labels):
    points, width = x.shape
    clusters = len(centers)
    columns = np.ascontiguousarray(x.T)  # points side by side fill registers
    label, before = np.zeros(points, np.int32), np.full(points, -1, np.int32)
    best, score = np.empty(points, x.dtype), np.empty(points, x.dtype)
    size, total = np.empty(clusters, x.dtype), np.empty((clusters, width), x.dtype)
    settled, rounds = False, 0
    while rounds < max_iter:
        rounds += 1
        _assign(columns, centers, best, score, label)
        same = True
        size[:] = 0
        total[:] = 0
        for i in range(points):
            if mask[i]:
                same = same and label[i] == before[i]
                before[i] = label[i]
                size[label[i]] += 1
                for c in range(width):
                    total[label[i], c] += x[i, c]
        moved = size.min() == 0 and _refill(x, centers, mask, label, size, total)
        largest = np.argmax(size)
        shift = 0.0
        for m in range(clusters):
            source = m if size[m] > 0 else largest
            for c in range(width):
                mean = total[source, c] / size[source]
                step = mean - centers[m, c]
                shift += step * step
                centers[m, c] = mean
        settled = same and not moved
        if limit >= 0 and (settled or shift <= limit):
            break
    if limit < 0 or not settled:
        _assign(columns, centers, best, score, label)
    labels[:] = label
    return rounds


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _assign(columns, centers, best, score, label):
    """Nearest centres; of equal ones the first."""
    points = columns.shape[1]
    for m in range(len(centers)):
        _nearness(columns, centers[m], score)
        if m == 0:
            best[:] = score
            label[:] = 0
        else:
            for i in range(points):
                nearer = score[i] < best[i]
                best[i] = score[i] if nearer else best[i]
                label[i] = m if nearer else label[i]


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _nearness(columns, center, score):
    """Squared distances of all points to one, but for their own squares."""
    width, points = columns.shape
    square = columns.dtype.type(0)
    for c in range(width):
        square += center[c] * center[c]
    score[:] = square
    c = 0
    while c + 4 <= width:  # four channels for one load and store of the sums
        # A literal 2 would turn the loop into one of doubles.
        one, two = center[c] + center[c], center[c + 1] + center[c + 1]
        three, four = center[c + 2] + center[c + 2], center[c + 3] + center[c + 3]
        for i in range(points):
            score[i] -= (one * columns[c, i] + two * columns[c + 1, i]) + (
                three * columns[c + 2, i] + four * columns[c + 3, i]
            )
        c += 4
    while c < width:
        one = center[c] + center[c]
        for i in range(points):
            score[i] -= one * columns[c, i]
        c += 1


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


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _inertia(x, centers, mask, labels):
    inertia = 0.0
    for i in range(len(x)):
        if mask[i]:
            for c in range(x.shape[1]):
                apart = x[i, c] - centers[labels[i], c]
                inertia += apart * apart
    return inertia


@njit(parallel=True, cache=True, error_model="numpy")
def fit_mixtures(
    x, mask, weights, means, variances, spherical, reg_covar, max_iter, tol, heat, bound, rounds
):
    """Expectation maximisation on all images; see ``_mixture.fit``.

    Args:
        x: (B, N, C).
        mask: (B, N) bool, False at padding.
        weights: (B, M) to begin with; changed, as the next two.
        means: (B, M, C).
        variances: (B, M, C), equal in all channels if ``spherical``.
        spherical: one variance a component.
        reg_covar: added to all variances.
        max_iter: rounds at most.
        tol: change of the bound at which an image is finished; below 0: never.
        heat: divides the logarithms of the joint densities.
        bound: (B,), written.
        rounds: (B,) int64, written.
    """
    for b in prange(len(x)):
        bound[b], rounds[b] = _fit(
            x[b],
            mask[b],
            weights[b],
            means[b],
            variances[b],
            spherical,
            reg_covar,
            max_iter,
            tol,
            heat,
        )


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _fit(x, mask, weights, means, variances, spherical, reg_covar, max_iter, tol, heat):
    columns = np.ascontiguousarray(x.T)
    squares = columns * columns
    share = np.empty((len(weights), len(x)), x.dtype)
    count = mask.sum()
    bound, rounds = -np.inf, 0
    while rounds < max_iter:
        rounds += 1
        before, bound = (
            bound,
            _expect(columns, mask, weights, means, variances, heat, share) / count,
        )
        _maximise(columns, squares, share, weights, means, variances, spherical, reg_covar)
        if abs(bound - before) < tol:
            break
    return bound, rounds


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _expect(columns, mask, weights, means, variances, heat, share):
    """Write the responsibilities (M, N), 0 at padding; answer the log-likelihood."""
    width, points = columns.shape
    components, one = len(weights), columns.dtype.type(1)
    top = np.full(points, -np.inf, columns.dtype)
    for m in range(components):
        constant = math.log(weights[m]) - 0.5 * width * math.log(2 * math.pi)
        share[m] = 0
        for c in range(width):
            constant -= 0.5 * math.log(variances[m, c])
            mean, precision = means[m, c], one / variances[m, c]
            for i in range(points):
                apart = columns[c, i] - mean
                share[m, i] += apart * apart * precision
        start, scale = columns.dtype.type(constant / heat), columns.dtype.type(-0.5 / heat)
        for i in range(points):
            share[m, i] = start + scale * share[m, i]
            top[i] = max(top[i], share[m, i])
    total = np.zeros(points, columns.dtype)
    for m in range(components):
        for i in range(points):
            below = share[m, i] - top[i]
            share[m, i] = math.exp(below) if below > -40 else 0  # e ** -40 is no share
            total[i] += share[m, i]
    likelihood = 0.0
    for i in range(points):
        if mask[i]:
            likelihood += top[i] + math.log(total[i])
        total[i] = one / total[i] if mask[i] else 0
    for m in range(components):
        for i in range(points):
            share[m, i] *= total[i]
    return likelihood


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _maximise(columns, squares, share, weights, means, variances, spherical, reg_covar):
    """Weights, means and variances that fit the responsibilities best."""
    width, points = columns.shape
    zero = columns.dtype.type(0)
    for m in range(len(weights)):
        size = zero
        for i in range(points):
            size += share[m, i]
        size += 10 * np.finfo(columns.dtype).eps
        weights[m] = size
        for c in range(width):
            first = second = zero
            for i in range(points):
                first += share[m, i] * columns[c, i]
                second += share[m, i] * squares[c, i]
            means[m, c] = first / size
            # Rounding must not make it negative.
            spread = max(second / size - means[m, c] * means[m, c], zero)
            variances[m, c] = spread + reg_covar
        if spherical:
            variances[m, :] = variances[m].mean()
    weights /= weights.sum()


@njit(parallel=True, cache=True, error_model="numpy")
def nearest_neighbour_chains(distances, mask, linkage, target, height):
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


@njit(cache=True, error_model="numpy", fastmath=_FAST | {"nnan"})
def _lowest(row):
    low = row[0]
    for i in range(len(row)):
        low = min(low, row[i])
    return low


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _chain(distances, mask, linkage, target, height):
    # Muellner, "Modern hierarchical, agglomerative clustering algorithms", 2011: follow nearest
    # neighbours until two are each other's, merge them, go on from what is left of the chain.
    points = len(mask)
    size = np.zeros(points, distances.dtype)  # 0 where a cluster is no more
    count = 0
    for i in range(points):
        target[i], height[i] = i, np.inf
        distances[i, i] = np.inf
        if mask[i]:
            size[i] = 1
            count += 1
        # The chain ends only if both directions are equal, and numbers.
        for j in range(i):
            near = min(distances[i, j], distances[j, i])
            near = near if near < np.inf and mask[i] and mask[j] else np.inf
            distances[i, j], distances[j, i] = near, near
    chain = np.empty(points + 1, np.int64)
    length, start = 0, 0
    while count > 1:
        if length == 0:
            while size[start] == 0:
                start += 1
            chain[0], length = start, 1
        while True:
            x = chain[length - 1]
            row = distances[x]
            low = _lowest(row)
            if length > 1 and row[chain[length - 2]] <= low:
                y = chain[length - 2]
                break
            y = 0
            while row[y] > low or size[y] == 0 or y == x:
                y += 1
            chain[length] = y
            length += 1
        length -= 2
        kept, gone = min(x, y), max(x, y)
        target[gone], height[gone] = kept, low
        count -= 1
        first, second = distances[kept], distances[gone]
        if low < np.inf:  # else all are infinitely far, and infinity less infinity is no number
            _join(linkage, first, second, low, size[kept], size[gone], size)
        size[kept] += size[gone]
        size[gone] = 0
        first[kept], first[gone] = np.inf, np.inf
        distances[:, kept] = first
        distances[:, gone] = np.inf


@njit(cache=True, error_model="numpy", fastmath=_FAST)
def _join(linkage, first, second, apart, first_size, second_size, size):
    """Lance-Williams: distances of two merged clusters to all, in the place of the first's."""
    if linkage == 2:
        for i in range(len(size)):
            first[i] = max(first[i], second[i])
    elif linkage == 1:
        total = first_size + second_size
        for i in range(len(size)):
            first[i] = (first_size * first[i] + second_size * second[i]) / total
    else:
        total = first_size + second_size
        for i in range(len(size)):
            near = (first_size + size[i]) * first[i] + (second_size + size[i]) * second[i]
            first[i] = (near - size[i] * apart) / (total + size[i])


@njit(parallel=True, cache=True, error_model="numpy")
def connected_cores(distances, radius, min_samples, mask, labels):
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


@njit(cache=True, error_model="numpy")
def _grow(distances, radius, min_samples, mask, labels):
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
