from __future__ import annotations

import json
from pathlib import Path

import pytest

from pacavit.errors import CheckpointError
from pacavit.report.curves import plot_curves


def test_curves_are_drawn_from_the_rows_of_a_run(tmp_path: Path) -> None:
    row = {"train_loss": 1.0, "val_loss": 0.8, "val_top_5": 0.5}
    lines = [json.dumps({"epoch": epoch, **row}) + "\n" for epoch in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines) + '{"epoch": 3, "tr')
    assert plot_curves(tmp_path, "top_5") == tmp_path / "curves.png"
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_epochs_has_no_curves(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no finished epoch"):
        plot_curves(tmp_path, "accuracy")
