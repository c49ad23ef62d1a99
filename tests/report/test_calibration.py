from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pacavit.engine import load_model
from pacavit.report.calibration import calibration_section
from pacavit.report.run_page import run_page
from pacavit.tasks.classification import Calibration

FOUND = Calibration(1.25, 1800, 0.51, 0.48, 0.062, 0.011)


def test_the_section_compares_before_and_after() -> None:
    section = calibration_section(FOUND)
    text = "".join(section.parts)
    for part in ("1.250", "1,800 validation", "overconfident", "0.0620", "0.0110", "0.5100"):
        assert part in text
    under = "".join(calibration_section(replace(FOUND, temperature=0.5)).parts)
    assert "underconfident" in under


def test_a_page_has_the_section_if_the_run_has_a_temperature(digits_run: Path) -> None:
    model = load_model(digits_run)
    heading = '<h2 id="calibration">'
    assert heading in run_page(digits_run, replace(model, calibration=FOUND))
    assert heading not in run_page(digits_run, replace(model, calibration=None))
