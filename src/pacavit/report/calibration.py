"""The section of a run's page on the calibration of its probabilities."""

from __future__ import annotations

from pacavit.report import html
from pacavit.tasks.classification import Calibration

__all__ = ["calibration_section"]


def calibration_section(calibration: Calibration) -> html.Section:
    """The temperature, and the calibration of the validation images before and after."""
    rows = [
        (
            "before, temperature 1",
            html.number(calibration.error_before),
            html.number(calibration.loss_before),
        ),
        (
            f"after, temperature {calibration.temperature:.3f}",
            html.number(calibration.error_after),
            html.number(calibration.loss_after),
        ),
    ]
    confident = "overconfident" if calibration.temperature > 1 else "underconfident"
    parts = [
        html.paragraph(
            f"After training, the temperature {calibration.temperature:.3f} was fitted on the "
            f"{calibration.num_images:,} validation images, where the network was {confident}. It "
            "divides the logits, so that probabilities agree better with how often the network is "
            "correct; predicted classes are the same. Every probability on this page is "
            "calibrated."
        ),
        html.table(
            "Validation images before and after calibration; the calibration error is the expected "
            "one, in 15 bins",
            ["calibration", "calibration error", "log loss"],
            rows,
        ),
    ]
    return html.Section("Calibration", parts)
