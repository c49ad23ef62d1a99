"""Temperature scaling: calibrate class probabilities without changing the predicted classes.

Guo et al., "On calibration of modern neural networks", ICML 2017: logits are divided by one number,
the temperature, which minimizes the log loss on validation images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Calibration", "fit_temperature", "measure_calibration"]

_ITERATIONS = 100  # Newton's method takes about 6, bisection alone 50
_LARGEST_SCALE = 1e3  # of 1 / temperature
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Calibration:
    """A fitted temperature, and what it changes on the validation images.

    Attributes:
        temperature: divides the logits; above 1 for an overconfident network.
        num_images: number of validation images that it was fitted on.
        loss_before: their log loss without the temperature.
        loss_after: with it.
        error_before: their expected calibration error without the temperature, in 15 bins.
        error_after: with it.
    """

    temperature: float
    num_images: int
    loss_before: float
    loss_after: float
    error_before: float
    error_after: float

    def __post_init__(self) -> None:
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"the temperature {self.temperature} must be positive and finite")

    def __str__(self) -> str:
        return (
            f"temperature {self.temperature:.3f}, fitted on {self.num_images:,} validation images: "
            f"calibration error {self.error_before:.4f} -> {self.error_after:.4f}, "
            f"log loss {self.loss_before:.4f} -> {self.loss_after:.4f}"
        )


def fit_temperature(logits: Tensor, labels: Tensor) -> float | None:
    """The temperature T that minimizes the mean log loss of softmax(logits / T), in float64.

    The loss is convex in 1 / T; its minimum is found by Newton's method, with bisection where a
    step of it would leave the bracket.

    Args:
        logits: (N, classes), N > 0.
        labels: (N,) int64, the true classes.

    Returns:
        None if no positive, finite temperature is best: all images are correct (the loss falls for
        ever as T goes to 0), or the true classes have no larger logits than the others on average
        (the best T is infinite).
    """
    scores = logits.double()
    # Softmax ignores a constant per image, and small numbers lose fewer digits.
    scores = scores - scores.amax(1, keepdim=True)
    true = scores.gather(1, labels[:, None])[:, 0]
    if (scores.mean(1) - true).mean() >= 0 or (true == 0).all():
        return None
    low, high, scale = 0.0, _LARGEST_SCALE, 1.0
    for _ in range(_ITERATIONS):
        probabilities = (scale * scores).softmax(1)
        mean = (probabilities * scores).sum(1)
        slope = (mean - true).mean().item()
        if slope > 0:
            high = scale
        else:
            low = scale
        curvature = ((probabilities * scores.square()).sum(1) - mean.square()).mean().item()
        step = scale - slope / curvature if curvature > 0 else math.inf
        following = step if low < step < high else (low + high) / 2
        if abs(following - scale) <= _TOLERANCE * scale:
            break
        scale = following
    return 1 / scale


def measure_calibration(logits: Tensor, labels: Tensor, temperature: float) -> Calibration:
    """Log loss and calibration error of N images with and without a temperature.

    Args:
        logits: (N, classes), N > 0.
        labels: (N,) int64, the true classes.
        temperature: as fitted to them.
    """
    # torchmetrics is needed for evaluation only, not for prediction.
    from pacavit.tasks.classification.metrics import CalibrationError, LogLoss

    before, after = logits.softmax(1), (logits / temperature).softmax(1)

    def error(probabilities: Tensor) -> float:
        return float(CalibrationError(logits.shape[1], n_bins=15)(probabilities, labels))

    return Calibration(
        temperature=temperature,
        num_images=len(labels),
        loss_before=float(LogLoss()(before, labels)),
        loss_after=float(LogLoss()(after, labels)),
        error_before=error(before),
        error_after=error(after),
    )
