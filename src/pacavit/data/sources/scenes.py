"""Pictures of colored, textured shapes on a cluttered background, with their ground truth.

All random numbers of a picture are functions of (seed, index), and pixels are computed with
additions, products, divisions, square roots and look-ups only. These are exactly rounded, so a
scene is the same, bit for bit, in every batch and on every processor.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from pacavit.data.random import SampleRandom

__all__ = ["NUM_SHAPES", "SHAPE_NAMES", "Scenes", "render_scenes"]

SHAPE_NAMES = ("circle", "ring", "triangle", "square", "half-disc", "star", "cross", "heart")
NUM_SHAPES = 4
"""Most shapes in a picture."""

_HOLE = 0.5  # inner radius of a ring as a fraction of its radius
_DIRECTIONS = 1024  # at which the outline of a shape is sampled; a multiple of 4
_TURNS = 360
# Radii of the circles around shapes, as fractions of the picture's side. The subject is at least a
# quarter larger than any other shape.
_SUBJECT_RADIUS = (0.25, 0.36)
_OTHER_RADIUS = (0.10, 0.20)
_MIN_VISIBLE = 0.005  # fraction of the picture that the visible part of a shape must have
_CONTRAST = 0.35  # between a shape and the mean color of the background, in one of the channels
_NOISE = 0.08


class Scenes(NamedTuple):
    """Pictures with their ground truth; K = 4 shapes at most, the first is the subject.

    Attributes:
        images: (B, 3, size, size) uint8.
        classes: (B, K) int64, positions in ``SHAPE_NAMES``; -1 if there is no shape, or too little
            of it is visible.
        boxes: (B, K, 4) float32, x1 y1 x2 y2 in pixels around the visible part; 0 for none.
        instances: (B, size, size) uint8, the visible shape: k + 1 for shape k, 0 for none.
        semantic: (B, size, size) uint8, class + 1 of the visible shape, 0 for none.
    """

    images: Tensor
    classes: Tensor
    boxes: Tensor
    instances: Tensor
    semantic: Tensor

    @property
    def masks(self) -> Tensor:
        """(B, K, size, size) bool, the visible part of each shape."""
        return _masks(self.instances)


class _Shapes(NamedTuple):
    """The random parameters of each shape: (B, K), colors (B, K, 3)."""

    present: Tensor
    classes: Tensor
    radius: Tensor
    x: Tensor
    y: Tensor
    cos: Tensor
    sin: Tensor
    texture: Tensor
    period: Tensor
    color: Tensor
    second_color: Tensor


def render_scenes(indices: Tensor, *, size: int = 64, seed: int = 0) -> Scenes:
    """(B,) int64 scene numbers -> B pictures of ``size`` x ``size`` pixels with ground truth.

    Each contains one to four shapes, which do not cross its border. The first, the subject, is
    larger than the others and covers them.

    Args:
        indices: scene numbers.
        size: side in pixels.
        seed: of the scenes.

    Example:
        >>> scenes = render_scenes(torch.arange(16), size=64)
        >>> tuple(scenes.masks.shape)
        (16, 4, 64, 64)
    """
    draws = SampleRandom(seed, 0, indices)
    shapes = _draw_shapes(draws)
    images = _ground(draws, size)
    instances = torch.zeros(len(indices), size, size, dtype=torch.uint8)
    for number in reversed(range(NUM_SHAPES)):  # the subject last, so that nothing covers it
        _paint(images, instances, shapes, number)
    noise = draws.uniform("noise", size * size).view(-1, 1, size, size) - 0.5
    pixels = ((images + _NOISE * noise) * 255).round().clamp(0, 255).to(torch.uint8)
    return _with_ground_truth(pixels, instances, shapes)


def _draw_shapes(draws: SampleRandom) -> _Shapes:
    """All random parameters of the shapes; lengths are fractions of the side."""
    ranges = [_SUBJECT_RADIUS] + [_OTHER_RADIUS] * (NUM_SHAPES - 1)
    low, high = torch.tensor(ranges).T
    radius = low + draws.uniform("radius", NUM_SHAPES) * (high - low)
    turn = draws.integers("turn", 0, _TURNS, NUM_SHAPES)
    cos, sin = (table[turn] for table in _turns())
    color = _colors(draws)
    # The second color of a texture is a lighter or darker shade of the first, so that a shape does
    # not look like several.
    shade = (0.45 + 0.25 * draws.uniform("shade", NUM_SHAPES))[..., None]
    darker = (draws.uniform("darker", NUM_SHAPES) < 0.5)[..., None]
    return _Shapes(
        present=torch.arange(NUM_SHAPES) < draws.integers("count", 1, NUM_SHAPES + 1),
        classes=draws.integers("class", 0, len(SHAPE_NAMES), NUM_SHAPES),
        radius=radius,
        x=radius + draws.uniform("x", NUM_SHAPES) * (1 - 2 * radius),
        y=radius + draws.uniform("y", NUM_SHAPES) * (1 - 2 * radius),
        cos=cos,
        sin=sin,
        texture=draws.integers("texture", 0, 4, NUM_SHAPES),
        period=0.08 + 0.08 * draws.uniform("period", NUM_SHAPES),
        color=color,
        second_color=torch.where(darker, color * shade, 1 - (1 - color) * shade),
    )


def _ground_colors(draws: SampleRandom) -> Tensor:
    """Mean color of the background: (B, 3) in 0..1."""
    return 0.2 + 0.6 * draws.uniform("ground colour", 3)


def _colors(draws: SampleRandom) -> Tensor:
    """Colors of shapes, each with contrast to the background in one channel: (B, K, 3) in 0..1."""
    colors = draws.uniform("colour", NUM_SHAPES * 3).view(-1, NUM_SHAPES, 3)
    # Modulo 1, a step between the contrast and 1 minus the contrast moves at least that far away.
    step = _CONTRAST + (1 - 2 * _CONTRAST) * colors
    apart = _ground_colors(draws)[:, None] + step
    apart = apart - apart.floor()
    channel = draws.integers("contrast channel", 0, 3, NUM_SHAPES)[..., None]
    return torch.where(torch.arange(3) == channel, apart, colors)


def _ground(draws: SampleRandom, size: int) -> Tensor:
    """The background: blots of two uneven colors, with grain: (B, 3, size, size) in about 0..1."""
    color = _ground_colors(draws)[:, :, None, None]
    fields = []
    for name in ("first field", "second field"):
        coarse = draws.uniform(name, 3 * 9).view(-1, 3, 3, 3)
        fields.append(color + 0.5 * (_enlarge(coarse, size) - 0.5))
    blots = _enlarge(draws.uniform("blots", 64).view(-1, 1, 8, 8), size)
    edge = (8 * (blots - 0.5) + 0.5).clamp(0, 1)
    grain = _enlarge(draws.uniform("grain", 24 * 24).view(-1, 1, 24, 24), size)
    return fields[0] + (fields[1] - fields[0]) * edge + 0.25 * (grain - 0.5)


def _enlarge(coarse: Tensor, size: int) -> Tensor:
    """Smooth interpolation in exactly rounded arithmetic: (B, C, n, n) -> (B, C, size, size)."""
    num = coarse.shape[-1]
    position = (torch.arange(size) + 0.5) * ((num - 1) / size)
    low = position.floor().long()
    weight = position - low
    weight = weight * weight * (3 - 2 * weight)
    for dim, weights in ((3, weight), (2, weight[:, None])):
        near, far = coarse.index_select(dim, low), coarse.index_select(dim, low + 1)
        coarse = near + (far - near) * weights
    return coarse


def _paint(images: Tensor, instances: Tensor, shapes: _Shapes, number: int) -> None:
    """Draw shape ``number`` of each scene that has it, in place, in a window around the shape."""
    size = images.shape[-1]
    scene = shapes.present[:, number].nonzero().flatten()
    own = _Shapes(*(fact[scene, number] for fact in shapes))
    largest = (_OTHER_RADIUS if number else _SUBJECT_RADIUS)[1]
    window = min(size, math.ceil(2 * largest * size) + 2)
    # (b, window) each: rows and columns of the window in the picture.
    rows, columns = (
        ((center * size).floor().long() - window // 2).clamp(0, size - window)[:, None]
        + torch.arange(window)
        for center in (own.y, own.x)
    )
    coverage, pattern = _outline_and_texture(own, rows, columns, size)
    # (b, 1, window * window): indices of the window's pixels in a flattened plane.
    place = (rows[:, :, None] * size + columns[:, None, :]).flatten(1)[:, None]
    coverage, pattern = coverage.flatten(1)[:, None], pattern.flatten(1)[:, None]
    ink = torch.where(pattern, own.second_color[..., None], own.color[..., None])
    planes = images.flatten(2)[scene]
    below = planes.gather(2, place.expand(-1, 3, -1))
    painted = below + (ink - below) * coverage
    images[scene] = planes.scatter_(2, place.expand(-1, 3, -1), painted).view(-1, 3, size, size)
    plane = instances.flatten(1)[scene, None]
    seen = torch.where(coverage >= 0.5, number + 1, plane.gather(2, place)).to(torch.uint8)
    instances[scene] = plane.scatter_(2, place, seen).view(-1, size, size)


def _outline_and_texture(
    own: _Shapes, rows: Tensor, columns: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """The fraction of each pixel that a shape covers, and whether it has the second color."""
    facts = own.radius * size, own.cos, own.sin, own.period, own.texture
    radius, cos, sin, period, texture = (fact[:, None, None] for fact in facts)
    y = (rows + 0.5 - (own.y * size)[:, None])[:, :, None]
    x = (columns + 0.5 - (own.x * size)[:, None])[:, None, :]
    u, v = x * cos + y * sin, y * cos - x * sin
    distance = (u * u + v * v).sqrt()
    entry = own.classes[:, None, None] * _DIRECTIONS + _direction(u, v)
    boundary = radius * _outlines().take(entry)
    coverage = boundary - distance
    ring = (own.classes == SHAPE_NAMES.index("ring"))[:, None, None]
    coverage = torch.where(ring, torch.minimum(coverage, distance - _HOLE * radius), coverage)
    u, v = u / (period * size), v / (period * size)
    u, v = u - u.floor(), v - v.floor()
    stripes, checks = u < 0.5, (u < 0.5) ^ (v < 0.5)
    dots = (u - 0.5) * (u - 0.5) + (v - 0.5) * (v - 0.5) < 0.09
    pattern = ((texture == 1) & stripes) | ((texture == 2) & checks) | ((texture == 3) & dots)
    return (coverage + 0.5).clamp(0, 1), pattern


def _direction(u: Tensor, v: Tensor) -> Tensor:
    """Points -> int64 index of their direction from the origin, computed without arctangent."""
    width, height = u.abs(), v.abs()
    quarter = height / (width + height).clamp_min(1e-6)
    half = torch.where(u < 0, 2 - quarter, quarter)
    full = torch.where(v < 0, 4 - half, half)
    return (full * (_DIRECTIONS // 4)).long().clamp_max(_DIRECTIONS - 1)


def _with_ground_truth(pixels: Tensor, instances: Tensor, shapes: _Shapes) -> Scenes:
    """Classes, boxes and masks of the visible shapes; specks become background."""
    size = instances.shape[-1]
    masks = _masks(instances)
    seen = masks.sum((2, 3)) >= _MIN_VISIBLE * size * size
    masks = masks & seen[:, :, None, None]
    instances = instances * masks.any(1)
    classes = torch.where(seen, shapes.classes, -1)
    # Entry 0 of each scene is the background.
    names = torch.cat([torch.zeros(len(classes), 1), classes + 1], dim=1).to(torch.uint8)
    semantic = names.gather(1, instances.flatten(1).long()).view_as(instances)
    sides = []
    for along in (masks.any(2), masks.any(3)):  # (B, K, size), over columns and over rows
        first = along.int().argmax(-1)
        last = size - along.flip(-1).int().argmax(-1)
        sides.append((first, last))
    (left, right), (top, bottom) = sides
    boxes = torch.stack([left, top, right, bottom], dim=-1).float() * seen[..., None]
    return Scenes(pixels, classes, boxes, instances, semantic)


def _masks(instances: Tensor) -> Tensor:
    numbers = torch.arange(1, NUM_SHAPES + 1, dtype=torch.uint8)
    return instances[:, None] == numbers[:, None, None]


@cache
def _turns() -> tuple[Tensor, Tensor]:
    """Cosine and sine of whole degrees."""
    angles = [math.radians(turn) for turn in range(_TURNS)]
    return torch.tensor([*map(math.cos, angles)]), torch.tensor([*map(math.sin, angles)])


@cache
def _outlines() -> Tensor:
    """(classes, directions): distance from center to outline as a fraction of the radius."""
    quarter = (torch.arange(_DIRECTIONS // 4, dtype=torch.float64) + 0.5) / (_DIRECTIONS // 4)
    first = torch.stack([1 - quarter, quarter], dim=1)
    right_angle = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    rays = [first]
    for _ in range(3):
        rays.append(rays[-1] @ right_angle)
    directions = torch.nn.functional.normalize(torch.cat(rays), dim=1)
    return torch.stack([_reach(_polygon(name), directions) for name in SHAPE_NAMES]).float()


def _reach(corners: Tensor, directions: Tensor) -> Tensor:
    """(n, 2) corners around the origin, (D, 2) unit vectors -> (D,) distances to the outline."""
    corners = corners / corners.norm(dim=1).max()
    edges = corners.roll(-1, 0) - corners

    def cross(a: Tensor, b: Tensor) -> Tensor:
        return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]

    slope = cross(directions[:, None], edges[None])
    distance = cross(corners, edges)[None] / slope
    along = cross(corners[None], directions[:, None]) / slope
    hit = (along > -1e-9) & (along < 1 + 1e-9) & (distance > 0)
    return torch.where(hit, distance, 0).amax(1)


def _polygon(name: str) -> Tensor:
    """(n, 2) corners of a shape that is star-shaped around the origin."""

    def regular(num: int, radii: tuple[float, ...] = (1.0,)) -> list[tuple[float, float]]:
        angles = [math.tau * k / num for k in range(num)]
        lengths = [radii[k % len(radii)] for k in range(num)]
        return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(lengths, angles, strict=True)]

    if name in ("circle", "ring"):
        corners = regular(256)
    elif name == "half-disc":
        middle = 4 / (3 * math.pi)  # the center of mass
        corners = [(x, y - middle) for x, y in regular(128)[:65]]
    elif name == "heart":
        times = [math.tau * k / 128 for k in range(128)]
        corners = [
            (
                16 * math.sin(t) ** 3,
                -13 * math.cos(t) + 5 * math.cos(2 * t) + 2 * math.cos(3 * t) + math.cos(4 * t),
            )
            for t in times
        ]
    elif name == "cross":
        arm = 0.35
        quarter = [(1.0, -arm), (1.0, arm), (arm, arm)]
        corners = quarter + [(-y, x) for x, y in quarter]
        corners += [(-x, -y) for x, y in corners]
    else:
        corners = {
            "triangle": regular(3),
            "square": regular(4),
            "star": regular(10, (1.0, 0.45)),
        }[name]
    return torch.tensor(corners, dtype=torch.float64)
