"""Products of small matrices, and the distances made of them."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["FAST", "centre", "mirror", "products", "triangle"]

# Sums in any order, so that they fill the registers of the processor; NaN and infinity stay.
FAST = {"contract", "reassoc", "nsz", "arcp"}


@njit(cache=True, error_model="numpy", fastmath=FAST)
def centre(x, mask, points, columns):
    """Write points around their mean, 0 at padding, and the same transposed; answer the mean.

    Args:
        x: (N, C), 0 at padding.
        mask: (N,) bool, False at padding.
        points: (N, C), written.
        columns: (C, N), written.
    """
    number, width = x.shape
    mean = np.zeros(width, x.dtype)
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
    for low in range(0, number, 64):  # no more rows at a time than the nearest cache holds
        block = points[low : low + 64]
        for c in range(width):
            column = columns[c, low : low + 64]
            for i in range(len(block)):
                column[i] = block[i, c]
    return mean


@njit(cache=True, error_model="numpy", fastmath=FAST)
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


@njit(cache=True, error_model="numpy", fastmath=FAST)
def triangle(x, mask, points, columns, out):
    """Squared distances of every point to those up to it, in the lower half of ``out`` (N, N).

    Args:
        x: (N, C), 0 at padding.
        mask: (N,) bool, False at padding.
        points: (N, C), room for the points around their mean.
        columns: (C, N), room for the same transposed.
        out: written; its upper half is left in any state.
    """
    centre(x, mask, points, columns)
    number, width = points.shape
    squares, zero = np.zeros(number, points.dtype), points.dtype.type(0)
    for c in range(width):
        column = columns[c]
        for i in range(number):
            squares[i] += column[i] * column[i]
    for low in range(0, number, 16):
        high = min(low + 16, number)
        products(points[low:high], columns, high, out[low:high])
        for i in range(low, high):
            row, own = out[i], squares[i]
            for j in range(i):
                apart = own + squares[j] - (row[j] + row[j])
                row[j] = max(zero, apart)
            row[i] = zero


@njit(cache=True, error_model="numpy")
def mirror(matrix):
    """Copy the lower half of a square matrix to its upper half."""
    number = len(matrix)
    for low in range(0, number, 16):  # columns of one cache line
        high = min(low + 16, number)
        for i in range(high):
            row = matrix[i]
            for j in range(max(low, i + 1), high):
                row[j] = matrix[j, i]
