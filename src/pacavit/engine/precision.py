"""Choose the precision of predictions: bf16 where the processor has it and the results agree."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pacavit.detectors import Detector
from pacavit.engine.system import PRECISIONS, autocast
from pacavit.engine.weights.load import LoadedModel, optimized
from pacavit.errors import UnknownNameError
from pacavit.heads import HeadOutput
from pacavit.tasks import Task
from pacavit.utils.linear import has_bf16

__all__ = ["AUTO", "MAX_ERROR", "check_choice", "for_prediction", "relative_error"]

AUTO = "auto"
MAX_ERROR = 0.03
"""Largest relative error with which bf16 is chosen.

Rounding to bf16 has a relative error of 0.4 %, and networks of this package return outputs with 1
to 2 %. More than that is a network whose clusters depend on rounding."""


def check_choice(precision: str) -> str:
    """Return "fp32", "bf16" or "auto" unchanged; UnknownNameError for anything else."""
    if precision not in (AUTO, *PRECISIONS):
        raise UnknownNameError("precision", precision, (AUTO, *PRECISIONS))
    return precision


def for_prediction(
    model: LoadedModel, precision: str, images: Tensor | None = None, *, in_place: bool = False
) -> LoadedModel:
    """A model for predictions only, in a given precision or in the one that suits.

    Args:
        model: as it was trained.
        precision: "fp32", "bf16", or "auto": bf16 if the device computes with it and outputs for
            ``images`` have a relative error of at most ``MAX_ERROR``, else fp32.
        images: (B, 3, height, width), preprocessed, to decide by; the device is theirs. Without
            any, "auto" is fp32, as for exported files.
        in_place: the model is not needed any more.
    """
    if check_choice(precision) != AUTO:
        return optimized(model, precision, in_place=in_place)
    if images is None or model.exported is not None or not _computes_bf16(images.device):
        return optimized(model, in_place=in_place)
    half = optimized(model, "bf16")
    single = optimized(model, in_place=in_place)
    agrees = relative_error(half, single, images) <= MAX_ERROR
    return half if agrees else single


def relative_error(model: LoadedModel, exact: LoadedModel, images: Tensor) -> float:
    """The error of a model's outputs, as a fraction of how much outputs differ from their mean.

    Outputs are the logits of classes, or the maps of a detector's backbone; of several, the largest
    error counts.

    Args:
        model: in the precision to judge.
        exact: the same in fp32.
        images: (B, 3, height, width), preprocessed.
    """
    errors = []
    for own, theirs in zip(_outputs(model, images), _outputs(exact, images), strict=True):
        spread = (theirs - theirs.mean()).norm()
        errors.append(float((own - theirs).norm() / spread.clamp(min=torch.finfo().tiny)))
    return max(errors)


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cpu":
        return has_bf16()
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


@torch.no_grad()
def _outputs(model: LoadedModel, images: Tensor) -> Sequence[Tensor]:
    task: Task = model.task.to(images.device)
    network = task.model
    with autocast(images.device, model.precision):
        found = network.backbone(images) if isinstance(network, Detector) else network(images)
    if isinstance(found, HeadOutput):
        found = found.logits
    outputs = [found] if isinstance(found, Tensor) else found
    return [each.float() for each in outputs]
