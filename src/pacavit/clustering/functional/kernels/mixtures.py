"""Expectation maximization of mixtures of Gaussians, compiled for the CPU.

Log-densities and variances are found from products with the points and their squares, which is
fast. The rounding error of that grows with the squares over the variances; a component for which it
could show is computed by differences in float64 instead.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from pacavit.clustering.functional.kernels.compiling import FAST, compiled, over_images
from pacavit.clustering.functional.kernels.products import center, products, transpose

__all__ = ["fit_mixtures"]

# The rounding error of a log-density (over the temperature) up to which products are used.
_ERROR = 1e-3


@over_images
def fit_mixtures(x, mask, weights, means, variances, rules, bound, rounds, responsibilities):
    """Expectation maximization on all images; see ``_mixture.fit``.

    Args:
        x: (B, N, C), 0 at padding.
        mask: (B, N) bool, False at padding.
        weights: (B, M) float64, to begin with; changed, as the next two.
        means: (B, M, C) float64.
        variances: (B, M, C) float64, equal in all channels if there is one a component.
        rules: whether there is one; what is added to all of them; iterations at most; the change of
            the bound at which an image is finished, below 0: never; what divides the logarithms of
            the joint densities.
        bound: (B,) float64, written.
        rounds: (B,) int64, iterations run; written.
        responsibilities: (B, M, N), the last ones, written; or of no image: not wanted.
    """
    images, number, width = x.shape
    components, temperature, halves = weights.shape[1], rules[4], _halves(x)
    for b in prange(images):
        both = np.empty((number, 2 * width), x.dtype)
        columns = np.empty((2 * width, number), x.dtype)
        raw = np.empty((width, number))
        frame = _with_squares(x[b], mask[b], both, columns)
        transpose(x[b], raw)
        parts = (weights[b], means[b], variances[b])
        own = np.empty((components, number), x.dtype)
        factors = np.empty((components, 2 * width), x.dtype)
        bound[b], rounds[b] = _fit(
            x[b], raw, both, columns, frame, mask[b], parts, rules, halves, factors, own
        )
        if len(responsibilities) > 0:
            _expect(raw, columns, frame, mask[b], parts, temperature, halves, factors, own)
            responsibilities[b] = own


@compiled()
def _fit(x, raw, both, columns, frame, mask, parts, rules, halves, factors, own):
    spherical, reg_covar, max_iter, tol, temperature = rules
    count = mask.sum()
    bound, rounds = -np.inf, 0
    while rounds < max_iter:
        rounds += 1
        before = bound
        bound = _expect(raw, columns, frame, mask, parts, temperature, halves, factors, own) / count
        _maximize(x, both, frame, own, factors, parts, spherical, reg_covar, temperature)
        if abs(bound - before) < tol:
            break
    return bound, rounds


@compiled()
def _halves(like):
    """Powers of 1/2, and 0 for those that a sum with a 1 in it does not show."""
    kind = like.dtype.type
    powers = np.empty(64, like.dtype)
    for k in range(64):
        powers[k] = kind(0.5**k) if 0.5 ** (k - 2) > np.finfo(like.dtype).eps else kind(0)
    return powers


@compiled()
def _with_squares(x, mask, both, columns):
    """Write points around their mean and the squares of that, side by side and transposed.

    Args:
        x: (N, C), 0 at padding.
        mask: (N,) bool.
        both: (N, 2 C), written.
        columns: (2 C, N), written.

    Returns:
        That mean (C,) and the largest distance from it in each channel (C,), both float64.
    """
    number, width = x.shape
    points, transposed = np.empty((number, width), x.dtype), np.empty((width, number), x.dtype)
    mean, reach = center(x, mask, points, transposed), np.zeros(width)
    for i in range(number):
        row, point = both[i], points[i]
        for c in range(width):
            row[c], row[width + c] = point[c], point[c] * point[c]
    for c in range(width):
        first, second, column = columns[c], columns[width + c], transposed[c]
        for i in range(number):
            first[i], second[i] = column[i], column[i] * column[i]
        reach[c] = math.sqrt(second.max())
    return mean.astype(np.float64), reach


@compiled(fastmath=FAST)
def _needs_differences(mean, variance, frame, eps, temperature):
    """Whether the rounding error of a component's log-densities by products could show."""
    middle, reach = frame
    total = 0.0
    for c in range(len(mean)):
        far = reach[c] + abs(mean[c] - middle[c])
        total += far * far / variance[c]
    return not total * eps < _ERROR * temperature  # NaN needs them


@compiled(fastmath=FAST)
def _expect(raw, columns, frame, mask, parts, temperature, halves, factors, own):
    """Write the responsibilities (M, N), 0 at padding; return the log-likelihood.

    Args:
        raw: (C, N) float64, the points.
        columns: (2 C, N), the same around their mean, and the squares of that.
        frame: that mean (C,) and the largest distance from it in each channel (C,).
        mask: (N,) bool.
        parts: weights (M,), means (M, C) and variances (M, C).
        temperature: what divides the logarithms of the joint densities.
        halves: see ``_halves``.
        factors: (M, 2 C), buffer, overwritten.
        own: (M, N), written.
    """
    weights, means, variances = parts
    (components, width), points = means.shape, columns.shape[1]
    kind, eps, scale = columns.dtype.type, np.finfo(columns.dtype).eps, -0.5 / temperature
    middle, constants, exact = frame[0], np.empty(components), np.empty(components, np.bool_)
    fast = 0  # components by products, in the first rows of ``factors``
    for m in range(components):
        mean, variance = means[m], variances[m]
        constants[m] = _log_factor(weights[m], variance) / temperature
        exact[m] = _needs_differences(mean, variance, frame, eps, temperature)
        if not exact[m]:
            first, second, distance = factors[fast, :width], factors[fast, width:], 0.0
            for c in range(width):
                precision, shift = scale / variance[c], mean[c] - middle[c]
                first[c] = -2 * precision * shift
                second[c] = precision
                distance += precision * shift * shift
            constants[m] += distance
            fast += 1
    rows = min((fast + 3) // 4 * 4, components)  # by fours, even if the last are of no use
    products(factors[:rows], columns, points, own[:rows])
    for m in range(components - 1, -1, -1):
        if not exact[m]:
            fast -= 1
            row, found, rest = own[m], own[fast], kind(constants[m])
            for i in range(points):
                row[i] = found[i] + rest
    precise = np.empty(points)
    for m in range(components):
        if exact[m]:
            precise[:] = constants[m]
            _add_distances(raw, means[m], scale / variances[m], precise)
            own[m, :] = precise
    return _normalize(own, mask, halves)


@compiled(fastmath=FAST)
def _add_distances(raw, mean, factors, out):
    """Add to ``out`` (N,) squared differences of points (C, N) and a mean, times factors (C,)."""
    width = len(mean)
    for c in range(0, width - 1, 2):  # two channels for one load and store of the sums
        one, other = raw[c], raw[c + 1]
        for i in range(len(out)):
            step, next_step = one[i] - mean[c], other[i] - mean[c + 1]
            out[i] += step * step * factors[c] + next_step * next_step * factors[c + 1]
    if width % 2:
        last = raw[width - 1]
        for i in range(len(out)):
            step = last[i] - mean[width - 1]
            out[i] += step * step * factors[width - 1]


@compiled(fastmath=FAST)
def _log_factor(weight, variance):
    """The logarithm of what a component's exponential is multiplied by."""
    spread, product = len(variance) * math.log(2 * math.pi), 1.0
    for c in range(len(variance)):
        product *= variance[c]
        if not 1e-150 < product < 1e150:  # a logarithm takes as long as ten products
            spread += math.log(product)
            product = 1.0
    return math.log(weight) - 0.5 * (spread + math.log(product))


@compiled(fastmath=FAST)
def _normalize(own, mask, halves):
    """Log-joint densities (M, N) to responsibilities, 0 at padding; return the log-likelihood."""
    components, points = own.shape
    kind = own.dtype.type
    one, zero = kind(1), kind(0)
    top, total = np.full(points, -np.inf, own.dtype), np.zeros(points, own.dtype)
    for m in range(components):
        row = own[m]
        for i in range(points):
            top[i] = max(top[i], row[i])
    remainder = np.empty(points, own.dtype)
    for m in range(components):
        row = own[m]
        for i in range(points):
            row[i] -= top[i]
        _exponentiate(row, halves, remainder)
        for i in range(points):
            total[i] += row[i]
    likelihood = 0.0
    for i in range(points):
        if mask[i]:
            likelihood += top[i] + math.log(total[i])
        total[i] = one / total[i] if mask[i] else zero
    for m in range(components):
        row = own[m]
        for i in range(points):
            row[i] *= total[i]
    return likelihood


@compiled(fastmath=FAST)
def _exponentiate(row, halves, remainder):
    """Replace numbers of at most 0 by their exponentials, or by 0 where 1 would not show them.

    Many times as fast as ``math.exp``, which takes one number at a time: e ** x is 2 ** -k times
    e ** r with r between plus and minus log(2) / 2, and that by its series.
    """
    kind, number = row.dtype.type, len(row)
    one, half, base, twos = kind(1), kind(0.5), kind(math.log(2)), kind(1 / math.log(2))
    f3, f4, f5, f6, f7 = kind(1 / 3), kind(1 / 4), kind(1 / 5), kind(1 / 6), kind(1 / 7)
    f8, f9, f10 = kind(1 / 8), kind(1 / 9), kind(1 / 10)
    f11, f12, f13 = kind(1 / 11), kind(1 / 12), kind(1 / 13)
    lowest = kind(-62 * math.log(2))
    for i in range(number):
        value = max(row[i], lowest)
        k = np.int32(half - value * twos)
        remainder[i] = value + kind(k) * base
        row[i] = halves[k]
    for i in range(number):
        r, series = remainder[i], one
        if np.finfo(row.dtype).eps < 1e-10:  # six more terms for float64
            series += r * f13
            series = one + r * f8 * (
                one + r * f9 * (one + r * f10 * (one + r * f11 * (one + r * f12 * series)))
            )
        series = one + r * f5 * (one + r * f6 * (one + r * f7 * series))
        row[i] *= one + r * (one + r * half * (one + r * f3 * (one + r * f4 * series)))


@compiled(fastmath=FAST)
def _maximize(x, both, frame, own, moments, parts, spherical, reg_covar, temperature):
    """Weights, means and variances that fit the responsibilities best; see ``_expect``.

    Args:
        x: (N, C), the points.
        both: (N, 2 C), the same around their mean, and the squares of that.
        frame: see ``_expect``.
        own: (M, N), the responsibilities.
        moments: (M, 2 C), buffer, overwritten.
        parts: written.
        spherical: one variance a component.
        reg_covar: added to all variances.
        temperature: see ``_expect``.
    """
    weights, means, variances = parts
    width, middle = means.shape[1], frame[0]
    eps = np.finfo(both.dtype).eps
    products(own, both, 2 * width, moments)
    for m in range(len(weights)):
        row, moment, mean, variance = own[m], moments[m], means[m], variances[m]
        size = 0.0
        for i in range(len(row)):
            size += row[i]
        size += 10 * np.finfo(np.float64).eps
        weights[m] = size
        for c in range(width):
            shift = moment[c] / size
            mean[c] = middle[c] + shift
            variance[c] = moment[width + c] / size - shift * shift + reg_covar
        if variance.min() <= 0 or _needs_differences(mean, variance, frame, eps, temperature):
            _fit_by_differences(x, row, size, mean, variance)
            variance += reg_covar
        if spherical:
            variance[:] = variance.mean()
    weights /= weights.sum()


@compiled(fastmath=FAST)
def _fit_by_differences(x, row, size, mean, variance):
    """The mean (C,) and the variances (C,) of points (N, C) with responsibilities (N,)."""
    mean[:], variance[:] = 0, 0
    for i in range(len(row)):
        if row[i] > 0:
            point, weight = x[i], row[i] / size
            for c in range(len(mean)):
                mean[c] += weight * point[c]
    for i in range(len(row)):
        if row[i] > 0:
            point, weight = x[i], row[i] / size
            for c in range(len(mean)):
                step = point[c] - mean[c]
                variance[c] += weight * step * step
