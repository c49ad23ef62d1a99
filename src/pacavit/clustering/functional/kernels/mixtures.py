"""Expectation maximisation of mixtures of Gaussians."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from pacavit.clustering.functional.kernels.products import FAST, centre, products

__all__ = ["fit_mixtures"]


@njit(parallel=True, cache=True, error_model="numpy")
def fit_mixtures(x, mask, weights, means, variances, rules, bound, rounds, share):
    """Expectation maximisation on all images; see ``_mixture.fit``.

    Args:
        x: (B, N, C), 0 at padding.
        mask: (B, N) bool, False at padding.
        weights: (B, M) to begin with; changed, as the next two.
        means: (B, M, C).
        variances: (B, M, C), equal in all channels if there is one a component.
        rules: whether there is one; what is added to all of them; rounds at most; the change of the
            bound at which an image is finished, below 0: never; what divides the logarithms of the
            joint densities.
        bound: (B,), written.
        rounds: (B,) int64, written.
        share: (B, M, N), the last responsibilities, written; or of no image: not wanted.
    """
    images, number, width = x.shape
    components, heat, halves = weights.shape[1], rules[4], _halves(x)
    for b in prange(images):
        points, columns = np.empty((number, width), x.dtype), np.empty((width, number), x.dtype)
        mean = centre(x[b], mask[b], points, columns)
        both, either = (
            np.empty((number, 2 * width), x.dtype),
            np.empty((2 * width, number), x.dtype),
        )
        _with_squares(points, columns, both, either)
        means[b] -= mean
        own = np.empty((components, number), x.dtype)
        parts = (weights[b], means[b], variances[b])
        factors = np.empty((components, 2 * width), x.dtype)
        bound[b], rounds[b] = _fit(both, either, mask[b], parts, rules, halves, factors, own)
        if len(share):
            _expect(either, mask[b], parts, heat, halves, factors, share[b])
        means[b] += mean


@njit(cache=True, error_model="numpy")
def _with_squares(points, columns, both, either):
    """Write points and their squares side by side (N, 2 C), and transposed (2 C, N)."""
    number, width = points.shape
    for i in range(number):
        row, point = both[i], points[i]
        for c in range(width):
            row[c], row[width + c] = point[c], point[c] * point[c]
    for c in range(width):
        first, second, column = either[c], either[width + c], columns[c]
        for i in range(number):
            first[i], second[i] = column[i], column[i] * column[i]


@njit(cache=True, error_model="numpy")
def _fit(both, either, mask, parts, rules, halves, factors, share):
    spherical, reg_covar, max_iter, tol, heat = rules
    count = mask.sum()
    bound, rounds = -np.inf, 0
    while rounds < max_iter:
        rounds += 1
        before = bound
        bound = _expect(either, mask, parts, heat, halves, factors, share) / count
        _maximise(both, share, factors, parts, spherical, reg_covar)
        if abs(bound - before) < tol:
            break
    return bound, rounds


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _expect(columns, mask, parts, heat, halves, factors, share):
    """Write the responsibilities (M, N), 0 at padding; answer the log-likelihood."""
    weights, means, variances = parts
    points, (components, width) = columns.shape[1], means.shape
    kind = columns.dtype.type
    one, zero, scale = kind(1), kind(0), kind(-0.5 / heat)
    # So many variances at a time that no float64 is too small for their product.
    together = 8 if np.finfo(columns.dtype).eps > 1e-10 else 2
    constants = np.empty(components, columns.dtype)
    for m in range(components):
        factor, mean, variance = factors[m], means[m], variances[m]
        spread, product = width * math.log(2 * math.pi), 1.0
        for c in range(width):
            product *= variance[c]
            if (c + 1) % together == 0:
                spread += math.log(product)
                product = 1.0
        distance = zero
        for c in range(width):
            precision = one / variance[c]
            distance += mean[c] * mean[c] * precision
            factor[c] = -(precision + precision) * mean[c] * scale
            factor[width + c] = precision * scale
        constants[m] = (math.log(weights[m]) - 0.5 * (spread + math.log(product))) / heat
        constants[m] += scale * distance
    products(factors, columns, points, share)
    top, total = np.full(points, -np.inf, columns.dtype), np.zeros(points, columns.dtype)
    for m in range(components):
        row, constant = share[m], constants[m]
        for i in range(points):
            row[i] += constant
            top[i] = max(top[i], row[i])
    room = np.empty((2, points), columns.dtype)
    for m in range(components):
        row = share[m]
        for i in range(points):
            row[i] -= top[i]
        _exponentiate(row, halves, room[0], room[1])
        for i in range(points):
            total[i] += row[i]
    likelihood = 0.0
    for i in range(points):
        if mask[i]:
            likelihood += top[i] + math.log(total[i])
        total[i] = one / total[i] if mask[i] else zero
    for m in range(components):
        row = share[m]
        for i in range(points):
            row[i] *= total[i]
    return likelihood


@njit(cache=True, error_model="numpy")
def _halves(like):
    """Powers of 1/2, and 0 for those that a sum with a 1 in it does not show."""
    kind = like.dtype.type
    powers = np.empty(64, like.dtype)
    for k in range(64):
        powers[k] = kind(0.5**k) if 0.5 ** (k - 2) > np.finfo(like.dtype).eps else kind(0)
    return powers


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _exponentiate(row, halves, rest, series):
    """In the place of numbers of at most 0 their exponentials, or 0 where 1 would not show them.

    Many times as fast as ``math.exp``, which takes one number at a time: e ** x is 2 ** -k times
    e ** r with r between plus and minus log(2) / 2, and that by its series.
    """
    kind, number = row.dtype.type, len(row)
    one, half, base, twos = kind(1), kind(0.5), kind(math.log(2)), kind(1 / math.log(2))
    lowest = kind(-62 * math.log(2))
    for i in range(number):
        value = max(row[i], lowest)
        k = np.int32(half - value * twos)
        rest[i] = value + kind(k) * base
        row[i] = halves[k]
        series[i] = one
    for n in range(7 if np.finfo(row.dtype).eps > 1e-10 else 13, 0, -1):
        factor = one / kind(n)
        for i in range(number):
            series[i] = one + series[i] * rest[i] * factor
    for i in range(number):
        row[i] *= series[i]


@njit(cache=True, error_model="numpy", fastmath=FAST)
def _maximise(both, share, moments, parts, spherical, reg_covar):
    """Weights, means and variances that fit the responsibilities best."""
    weights, means, variances = parts
    width = means.shape[1]
    kind = both.dtype.type
    zero, least = kind(0), kind(reg_covar)
    products(share, both, 2 * width, moments)
    for m in range(len(weights)):
        size, row, moment, mean, variance = zero, share[m], moments[m], means[m], variances[m]
        for i in range(len(row)):
            size += row[i]
        size += kind(10 * np.finfo(both.dtype).eps)
        weights[m] = size
        for c in range(width):
            mean[c] = moment[c] / size
            # Rounding must not make it negative.
            variance[c] = max(moment[width + c] / size - mean[c] * mean[c], zero) + least
        if spherical:
            variance[:] = variance.mean()
    weights /= weights.sum()
