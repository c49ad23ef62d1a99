"""Checks of what works on maps: backbones, segmentation heads and detectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pacavit.testing.common import check_parameters, say

__all__ = ["check_backbone", "check_detector", "check_head"]

_MAP_CHANNELS, _MAP_STRIDES, _CLASSES = (12, 20, 16), (4, 8, 16), 5


def check_backbone(model: Any, image_size: tuple[int, int] = (48, 64)) -> None:
    """Check timm's interface of a model: shapes, feature_info, odd sizes, gradients, classifier.

    Args:
        model: a module with timm's interface, built with at least one class.
        image_size: (height, width) in pixels of the largest input tried.

    Raises:
        AssertionError: names the requirement that is violated.
    """
    torch.manual_seed(0)
    height, width = image_size
    model.eval()
    for size in ((height, width), (height - 7, width - 3), (width, height)):
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            final, maps = model.forward_intermediates(images)
            logits = model(images)
            alone = model(images[1:])
        assert logits.shape == (2, model.num_classes), f"logits are {tuple(logits.shape)}"
        assert logits.isfinite().all(), "logits are not finite"
        torch.testing.assert_close(
            alone, logits[1:], atol=1e-4, rtol=1e-4, msg=say("an image depends on its batch")
        )
        torch.testing.assert_close(
            final, maps[-1], msg=say("forward_intermediates returns other final features")
        )
        assert len(maps) == len(model.feature_info), "feature_info does not match the stages"
        for feature, info in zip(maps, model.feature_info, strict=True):
            sides = tuple(-(-side // info["reduction"]) for side in size)
            expected = (2, info["num_chs"], *sides)
            assert feature.shape == expected, f"map {tuple(feature.shape)}, not {expected}"
    model.train()
    model(torch.randn(2, 3, height, width)).square().sum().backward()
    check_parameters(model)
    model.zero_grad()


def check_head(cls: Callable[..., Any], options: Mapping[str, Any] | None = None) -> None:
    """Check that a class fulfills the contract of segmentation heads.

    Args:
        cls: built as ``cls(in_channels, strides, num_classes, **options)``, for three maps.
        options: named options to build it with.

    Raises:
        AssertionError: names the requirement that is violated.
    """
    torch.manual_seed(0)
    head = cls(_MAP_CHANNELS, _MAP_STRIDES, _CLASSES, **dict(options or {}))
    # Moves the statistics of norms away from their first values.
    head.train()(_maps(3, (64, 96)))
    clusters = getattr(head, "cluster_logits", None)
    for size in ((64, 96), (57, 90), (16, 16)):
        maps = _maps(3, size)
        with torch.no_grad():
            output, alone = head.eval()(maps), head([each[1:2] for each in maps])
        expected = (3, _CLASSES)
        assert output.logits.shape[:2] == expected, f"logits are {tuple(output.logits.shape)}"
        assert output.logits.ndim == 4, f"logits are {tuple(output.logits.shape)}"
        assert output.logits.isfinite().all(), "logits are not finite"
        torch.testing.assert_close(
            alone.logits,
            output.logits[1:2],
            atol=1e-4,
            rtol=1e-4,
            msg=say("an image depends on its batch"),
        )
        assert clusters is None or clusters in output.supervised, (
            f"cluster_logits={clusters!r} are not returned in evaluation"
        )
    maps = [each.requires_grad_() for each in _maps(3, (57, 90))]
    output = head.train()(maps)
    loss = output.logits.square().sum()
    for name, logits in output.supervised.items():
        assert name in head.loss_weights, f"loss_weights has no factor for {name!r}"
        assert logits.ndim == 4, f"supervised {name!r} are {tuple(logits.shape)}"
        assert logits.shape[:2] == (3, _CLASSES), f"supervised {name!r} are {tuple(logits.shape)}"
        loss = loss + logits.square().sum()
    loss.backward()
    assert any(each.grad is not None for each in maps), "no gradient reaches a map"
    check_parameters(head)
    _check_classifiers(head)


def check_detector(cls: Callable[..., Any], options: Mapping[str, Any] | None = None) -> None:
    """Check that a class fulfills the contract of detectors.

    Args:
        cls: built as ``cls(backbone, num_classes, **options)``, for a backbone with three maps.
        options: named options to build it with; with small widths the check takes seconds.

    Raises:
        AssertionError: names the requirement that is violated.
    """
    torch.manual_seed(0)
    detector = cls(_Backbone(), _CLASSES, **dict(options or {}))
    _check_losses(detector.train())
    for size in ((64, 96), (57, 90)):
        _check_results(detector.eval(), size)
    _check_class_logits(detector)
    own, classifiers = set(detector.modules()), detector.classifiers()
    assert own.issuperset(classifiers), "classifiers() returns a layer that is not the detector's"
    of_classes = {each for layer in classifiers for each in layer.parameters()}
    other = cls(_Backbone(), _CLASSES + 1, **dict(options or {})).state_dict()
    for name, parameter in detector.named_parameters():
        assert parameter in of_classes or other[name].shape == parameter.shape, (
            f"{name} depends on the number of classes, and classifiers() does not return its layer"
        )


class _Target(NamedTuple):
    """As ``pacavit.detectors.Target``, which is in a package above this module."""

    boxes: Tensor
    labels: Tensor
    masks: Tensor | None


class _Backbone(nn.Module):
    """(B, 3, height, width) -> three maps, as ``pacavit.models.Pyramid``."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.strides = _MAP_CHANNELS, _MAP_STRIDES
        inputs, steps = (3, *_MAP_CHANNELS), (_MAP_STRIDES[0], 2, 2)
        self.layers = nn.ModuleList(
            nn.Conv2d(inputs[index], width, step + 1, step, step // 2)
            for index, (width, step) in enumerate(zip(_MAP_CHANNELS, steps, strict=True))
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        maps: list[Tensor] = []
        for layer in self.layers:
            maps.append(layer(images if not maps else maps[-1]).relu())
        return maps


def _targets(size: tuple[int, int], *, masks: bool) -> list[_Target]:
    """Two objects, none and one, in images with ``size`` = (height, width)."""
    boxes = torch.tensor([[8.0, 8, 40, 40], [30, 20, 52, 50], [2, 30, 22, 54]])
    labels = torch.tensor([0, _CLASSES - 1, 1])
    found = []
    for rows in (slice(0, 2), slice(0, 0), slice(2, 3)):
        pixels = torch.zeros(len(boxes[rows]), *size, dtype=torch.bool)
        for row, (left, top, right, bottom) in enumerate(boxes[rows].int().tolist()):
            pixels[row, top:bottom, left:right] = True
        found.append(_Target(boxes[rows], labels[rows], pixels if masks else None))
    return found


def _check_losses(detector: Any) -> None:
    size, names = (64, 96), tuple(detector.loss_names)
    images, targets = torch.randn(3, 3, *size), _targets(size, masks=detector.has_masks)
    cases = {"": targets, " of images without objects": [targets[1]] * 3}
    for case, wanted in cases.items():
        detector.zero_grad()
        losses = detector.losses(images, wanted, [size, (60, 90), (57, 96)])
        assert tuple(losses) == names, f"losses are {tuple(losses)}, and loss_names are {names}"
        for name, loss in losses.items():
            assert loss.ndim == 0, f"loss {name!r}{case} is of shape {tuple(loss.shape)}"
            assert loss.isfinite(), f"loss {name!r}{case} is not finite"
        sum(losses.values()).backward()
        check_parameters(detector)
    detector.zero_grad()


def _check_results(detector: Any, size: tuple[int, int]) -> None:
    images = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        together, alone = detector(images), detector(images[1:2])
        with torch.autocast("cpu", torch.bfloat16):
            half = detector(images)
    assert len(together) == 3, f"{len(together)} results of 3 images"
    for found in (*together, *half):
        _check_result(found, size, masks=detector.has_masks)
    for name, one, all_ in zip(alone[0]._fields, alone[0], together[1], strict=True):
        torch.testing.assert_close(
            one, all_, atol=1e-4, rtol=1e-4, msg=say(f"{name} of an image depend on its batch")
        )


def _check_result(found: Any, size: tuple[int, int], *, masks: bool) -> None:
    number = len(found.labels)
    assert found.boxes.shape == (number, 4), f"boxes are {tuple(found.boxes.shape)}"
    assert found.scores.shape == (number,), f"scores are {tuple(found.scores.shape)}"
    for name in ("boxes", "scores"):
        dtype = getattr(found, name).dtype
        assert dtype == torch.float32, f"{name} are {dtype}, not fp32"
    left, top, right, bottom = found.boxes.T
    inside = (left >= 0) & (top >= 0) & (right <= size[1]) & (bottom <= size[0])
    assert inside.all(), "boxes are not inside of the image"
    assert ((found.labels >= 0) & (found.labels < _CLASSES)).all(), "labels are not classes"
    assert ((found.scores >= 0) & (found.scores <= 1)).all(), "scores are not in 0..1"
    assert (found.scores.diff() <= 0).all(), "scores do not fall"
    given = [found.box_masks is not None, found.instances is not None]
    assert sum(given) == masks, f"has_masks is {masks}; box_masks, instances: given {given}"
    if found.box_masks is not None:
        assert found.box_masks.shape[:1] == (number,), "not one mask for each box"
        assert found.box_masks.dtype == torch.float32, "box_masks are not fp32"
        assert ((found.box_masks >= 0) & (found.box_masks <= 1)).all(), "box_masks are not in 0..1"
    if found.instances is not None:
        shape, dtype = tuple(found.instances.shape), found.instances.dtype
        assert (shape, dtype) == (size, torch.int64), f"instances are {shape} {dtype}"
        numbers = found.instances.unique().tolist()
        assert {0, *numbers} == set(range(number + 1)), "instances are not numbered 1, 2, ..."


def _check_class_logits(detector: Any) -> None:
    images = torch.randn(2, 3, 64, 96, requires_grad=True)
    boxes = torch.tensor([[8.0, 8, 40, 40], [30, 20, 52, 50]])
    logits = detector.class_logits(detector.backbone(images), (64, 96), boxes)
    shape = tuple(logits.shape)
    assert shape == (2, _CLASSES), f"class_logits are {shape}, not (2, {_CLASSES})"
    assert logits.dtype == torch.float32, f"class_logits are {logits.dtype}, not fp32"
    assert logits.isfinite().all(), "class_logits are not finite"
    (gradient,) = torch.autograd.grad(logits[0, 0], images)
    assert gradient[0].any(), "no gradient of class_logits reaches the image"
    assert not gradient[1].any(), "class_logits of an image depend on its batch"


def _check_classifiers(head: Any) -> None:
    """The layers that a head names have an output per class, and are its own."""
    own = set(head.modules())
    for layer in head.classifiers():
        assert layer in own, "classifiers() returns a layer that is not the head's"
        sizes = {parameter.shape[0] for parameter in layer.parameters()}
        assert sizes == {_CLASSES}, "classifiers() returns a layer without an output per class"


def _maps(batch: int, size: tuple[int, int]) -> list[Tensor]:
    """The maps of images with ``size`` = (height, width)."""
    generator = torch.Generator().manual_seed(size[0])
    return [
        torch.randn(batch, channels, *(-(-side // stride) for side in size), generator=generator)
        for channels, stride in zip(_MAP_CHANNELS, _MAP_STRIDES, strict=True)
    ]
