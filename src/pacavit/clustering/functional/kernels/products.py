"""Products of small matrices, and the distances made of them.

Squared distances by products (``|x|^2 + |y|^2 - 2 x y``) are many times as fast as by differences,
but their rounding error grows with the norms. Every decision that this error could change is
therefore made again by differences in float64.
"""

from __future__ import annotations

import numpy as np

from pacavit.clustering.functional.kernels.compiling import FAST, compiled

__all__ = [
    "center",
    "differences",
    "distances",
    "mirror",
    "pair",
    "products",
    "rounding",
    "transpose",
]

# Distances by products that are smaller than this fraction of the squared norms lose too many
# digits of float64 and are computed by differences.
_CANCELLED = 1e-6


@compiled(fastmath=FAST)
def center(x, mask, points, columns):
    """Write points around their mean, 0 at padding, and the same transposed; return the mean.

    Args:
        x: (N, C), 0 at padding.
        mask: (N,) bool, False at padding.
        points: (N, C), written.
        columns: (C, N), written.
    """
    number, width = x.shape
    mean = np.zeros(width, points.dtype)
    for i in range(number):
        row = x[i]
        for c in range(width):
            mean[c] += row[c]
    mean /= mask.sum()
    for i in range(number):
        row, point = x[i], points[i]
        for c in range(width):
            point[c] = row[c] - mean[c]
        if not mask[i]:
            point[:] = 0
    transpose(points, columns)
    return mean


@compiled()
def transpose(points, columns):
    """Write (N, C) as (C, N)."""
    number, width = points.shape
    for low in range(0, number, 64):  # no more rows at a time than the nearest cache holds
        block = points[low : low + 64]
        for c in range(width):
            column = columns[c, low : low + 64]
            for i in range(len(block)):
                column[i] = block[i, c]


@compiled(fastmath=FAST)
def products(rows, columns, points, out):
    """``rows @ columns``: (M, C) by (C, N) -> (M, N), of which the first ``points`` columns."""
    number, width = rows.shape
    blocks, quads = number // 4 * 4, width // 4 * 4
    for m in range(0, blocks, 4):  # four rows and four channels for one load and store of the sums
        one, two, three, four = out[m], out[m + 1], out[m + 2], out[m + 3]
        for i in range(points):
            one[i] = two[i] = three[i] = four[i] = 0
        for c in range(0, quads, 4):
            w, x, y, z = columns[c], columns[c + 1], columns[c + 2], columns[c + 3]
            a, b, d, e = rows[m], rows[m + 1], rows[m + 2], rows[m + 3]
            a0, a1, a2, a3 = a[c], a[c + 1], a[c + 2], a[c + 3]
            b0, b1, b2, b3 = b[c], b[c + 1], b[c + 2], b[c + 3]
            d0, d1, d2, d3 = d[c], d[c + 1], d[c + 2], d[c + 3]
            e0, e1, e2, e3 = e[c], e[c + 1], e[c + 2], e[c + 3]
            for i in range(points):
                one[i] += (a0 * w[i] + a1 * x[i]) + (a2 * y[i] + a3 * z[i])
                two[i] += (b0 * w[i] + b1 * x[i]) + (b2 * y[i] + b3 * z[i])
                three[i] += (d0 * w[i] + d1 * x[i]) + (d2 * y[i] + d3 * z[i])
                four[i] += (e0 * w[i] + e1 * x[i]) + (e2 * y[i] + e3 * z[i])
    for m in range(number):
        if m >= blocks:
            out[m, :points] = 0
        for c in range(quads if m < blocks else 0, width):
            factor, column, row = rows[m, c], columns[c], out[m]
            for i in range(points):
                row[i] += factor * column[i]


@compiled()
def rounding(like, width):
    """How far products can put the difference of two squared distances off, over squared norms.

    A bound for any values: no sum of ``products`` has more than width / 4 + 4 terms one after the
    other, and the coordinates around the mean are rounded too.

    Args:
        like: an array of the precision.
        width: channels C.
    """
    return (width / 4 + 12) * np.finfo(like.dtype).eps


# Without FAST: each sum is in the order of the channels, so that a pair of points has one distance
# to the last bit, whichever of the next two functions finds it.
@compiled()
def differences(columns, i, points, out):
    """Squared distances of point i to the first ``points``, by differences in float64.

    Args:
        columns: (C, N) float64, not centered.
        i: the point.
        points: how many.
        out: (N,) float64, written.
    """
    out[:points] = 0
    for c in range(len(columns)):
        column, own = columns[c], columns[c, i]
        for j in range(points):
            step = column[j] - own
            out[j] += step * step


@compiled()
def pair(x, i, j):
    """The squared distance of two points (N, C), by differences in float64."""
    total = 0.0
    for c in range(x.shape[1]):
        step = np.float64(x[i, c]) - np.float64(x[j, c])
        total += step * step
    return total


@compiled(fastmath=FAST)
def distances(x, mask, out):
    """Squared distances of every point to those before it, in the lower half of ``out`` (N, N).

    Args:
        x: (N, C), 0 at padding.
        mask: (N,) bool, False at padding.
        out: float64, written; its upper half, and what belongs to padding, is left in any state.
    """
    number, width = x.shape
    points, columns = np.empty((number, width)), np.empty((width, number))
    center(x, mask, points, columns)
    squares = np.zeros(number)
    for c in range(width):
        column = columns[c]
        for i in range(number):
            squares[i] += column[i] * column[i]
    raw = np.empty((width, 0))  # the points as given, transposed; written when first needed
    for low in range(0, number, 16):
        high = min(low + 16, number)
        products(points[low:high], columns, high, out[low:high])
        for i in range(low, high):
            row, own, cancelled = out[i], squares[i], 0
            for j in range(i):
                both = own + squares[j]
                apart = both - (row[j] + row[j])
                cancelled += 0 if apart > _CANCELLED * both else 1
                row[j] = apart
            row[i] = 0
            if cancelled > 0 and mask[i]:
                if raw.shape[1] == 0:
                    raw = np.empty((width, number))
                    transpose(x, raw)
                differences(raw, i, i, row)


@compiled()
def mirror(matrix):
    """Copy the lower half of a square matrix (N, N) to its upper half; further columns stay."""
    number = len(matrix)
    whole = number // 8 * 8
    for low in range(0, number, 8):  # tiles of one cache line by one; of fixed size where possible
        high = min(low + 8, number)
        for left in range(0, low, 8):
            for i in range(left, left + 8):
                row = matrix[i]
                if low < whole:
                    for j in range(8):
                        row[low + j] = matrix[low + j, i]
                else:
                    for j in range(low, high):
                        row[j] = matrix[j, i]
        for i in range(low, high):
            for j in range(i + 1, high):
                matrix[i, j] = matrix[j, i]
