"""Runs side by side: what is read from them, how sure differences are, and the pages."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from rich.console import Console
from torch import Tensor

from pacavit import api
from pacavit.api import comparing
from pacavit.compare import Comparison, RunResult, compare_runs, write_comparison
from pacavit.compare.pages import comparison_page, comparison_text, print_comparison
from pacavit.compare.pictures import draw_bars
from pacavit.compare.results import leading_rows
from pacavit.engine.evaluate import ClassScores, Evaluation
from pacavit.errors import CheckpointError, Interrupted, RecipeError
from pacavit.report.tasks.base import PairedScores
from pacavit.tasks import ClassificationTask
from pacavit.utils.command import pacavit_command
from pacavit_cli.main import main


def result(value: str, correct: list[int], *, seed: int = 0, entropy: float | None = None) -> Any:
    right = np.array(correct, dtype=bool)
    share = float(right.mean())
    averages = {
        f"{score}_{mean}": share
        for score in ("precision", "recall", "f1")
        for mean in ("macro", "weighted")
    }
    per_class = dict.fromkeys(("precision", "recall", "f1"), share)
    evaluation = Evaluation(
        task="classification",
        scores={"accuracy": share, "loss": 1.0, **averages},
        per_class=(ClassScores("a", per_class, len(right)),),
        arrays={"confusion": torch.zeros(1, 1, dtype=torch.int64)},
        num_images=len(right),
        images_per_second=100.0,
    )
    epochs = [
        {"epoch": 1, "val_accuracy": 0.1, "images_per_second": 50.0, "elapsed": 60.0},
        {"epoch": 2, "val_accuracy": share, "images_per_second": 70.0, "elapsed": 120.0},
    ]
    if entropy is not None:
        epochs[-1] |= {"clusters_used": 7.0, "clusters_entropy": entropy}
    folder = Path(f"{value}-seed{seed}")
    paired = PairedScores(tuple((str(number), "a") for number in range(len(right))), right)
    return RunResult(value, seed, folder, evaluation, paired, epochs, 1234, 5_600_000)


COMMAND = pacavit_command("compare", "digits")


def compared(*runs: RunResult) -> Comparison:
    return compare_runs(["model.clustering"], "digits", COMMAND, runs)


def test_differences_are_those_of_paired_images() -> None:
    """McNemar: 30 images change for the better, 10 for the worse, of 1000."""
    one = [1] * 900 + [0] * 100
    other = [1] * 890 + [0] * 10 + [1] * 30 + [0] * 70
    first, second = compared(result("conv", one), result("mlp", other)).rows
    assert first.difference is None
    assert second.difference is not None
    assert second.difference.mean == pytest.approx(0.02)
    error = np.sqrt(30 + 10 - 20**2 / 1000) / 1000
    assert second.difference.high - second.difference.low == pytest.approx(2 * 1.96 * error)
    assert second.difference.significant


def test_equal_runs_do_not_differ_significantly_and_deviations_are_those_of_seeds() -> None:
    one, other = [1, 0, 1, 1], [1, 1, 0, 1]
    rows = compared(
        result("conv", one),
        result("mlp", other),
        result("conv", other, seed=1),
        result("mlp", [1, 1, 1, 1], seed=1),
    ).rows
    assert [row.value for row in rows] == ["conv", "mlp"]
    assert [len(row.runs) for row in rows] == [2, 2]
    assert rows[0].score("accuracy") == (0.75, 0.0)
    mean, deviation = rows[1].score("accuracy")
    assert mean == 0.875
    assert deviation == pytest.approx(0.125 * np.sqrt(2))
    assert rows[1].difference is not None
    assert not rows[1].difference.significant


def test_runs_on_other_images_are_not_compared() -> None:
    with pytest.raises(CheckpointError, match="different images"):
        compared(result("conv", [1, 0]), result("mlp", [1, 0, 1]))


def test_pages_tell_names_as_they_are_and_numbers_where_there_are_any(tmp_path: Path) -> None:
    comparison = compared(result("<b>|x", [1, 0, 1, 1], entropy=0.25), result("full", [1, 1, 1, 1]))
    page, text = comparison_page(comparison), comparison_text(comparison)
    assert "&lt;b&gt;|x" in page
    assert "<b>|x" not in page
    assert "<b>\\|x" in text
    assert "0.7500" in text
    assert "0.25" in text
    assert " ± " not in text
    assert {path.name for path in write_comparison(comparison, tmp_path / "new")} == {
        "comparison.html",
        "comparison.md",
        "curves.png",
        "accuracy.png",
    }


def test_nothing_is_best_among_rows_that_do_not_differ() -> None:
    close, far = [1] * 95 + [0] * 5, [1] * 50 + [0] * 50
    other = [0] * 2 + [1] * 94 + [0] * 4
    alike = compared(result("conv", close), result("mlp", other), result("grid", far))
    assert [row.value for row in leading_rows(alike)] == ["conv", "mlp"]
    page = comparison_page(alike)
    assert "<dt>best</dt>" not in page
    assert "<dt>highest, without significant difference</dt><dd>conv, mlp</dd>" in page
    assert "94.0 % to 95.0 %" in page
    apart = compared(result("grid", far), result("conv", close))
    assert [row.value for row in leading_rows(apart)] == ["conv"]
    assert "<dt>best</dt><dd>conv</dd>" in comparison_page(apart)


def test_run_folders_are_links() -> None:
    page = comparison_page(compared(result("conv", [1, 0]), result("mlp", [1, 1], seed=1)))
    assert '<a href="conv-seed0/report.html">conv-seed0</a>' in page
    assert '<a href="mlp-seed1/report.html">mlp-seed1</a>' in page


def test_whiskers_stay_within_0_and_1() -> None:
    axes = Figure().subplots()
    draw_bars(axes, compared(result("all", [1] * 8), result("none", [0] * 8)))
    ends = [
        point
        for lines in axes.collections
        for path in lines.get_paths()
        for point in np.asarray(path.vertices).tolist()
    ]
    assert len(ends) == 4
    assert all(0 <= x <= 1 for x, _ in ends)
    assert max(x for x, _ in ends) == 1
    assert min(x for x, _ in ends) == 0


def segmented(value: str, miou: float) -> RunResult:
    names = ("mIoU", "pixel_accuracy", "mean_accuracy", "boundary_IoU")
    evaluation = Evaluation(
        task="segmentation",
        scores=dict.fromkeys(names, miou),
        per_class=(ClassScores("a", {"iou": miou}, 100),),
        arrays={"confusion": torch.zeros(1, 1, dtype=torch.int64)},
        num_images=20,
        images_per_second=100.0,
    )
    epochs = [{"epoch": 1, "val_mIoU": miou, "images_per_second": 50.0, "elapsed": 60.0}]
    return RunResult(value, 0, Path(f"{value}-seed0"), evaluation, None, epochs, 1234, 5_600_000)


def test_scores_that_are_no_proportions_of_images_have_no_interval_and_no_test() -> None:
    comparison = compared(segmented("conv", 0.5), segmented("mlp", 0.6))
    text = comparison_text(comparison)
    for word in ("McNemar", "Wilson", "difference (95 %)"):
        assert word not in text
        assert word in comparison_text(compared(result("conv", [1, 0]), result("mlp", [1, 1])))
    assert "Differences were not tested" in text
    axes = Figure().subplots()
    draw_bars(axes, comparison)
    assert not axes.collections


@pytest.mark.parametrize("width", [72, 80, 160])
def test_numbers_and_headings_are_whole_in_narrow_consoles(width: int) -> None:
    stream = io.StringIO()
    comparison = compared(segmented("hierarchical", 0.1234), segmented("mlp", 0.5678))
    print_comparison(comparison, console=Console(file=stream, width=width))
    assert stream.getvalue().count("0.1234") == 4
    assert stream.getvalue().count("0.5678") == 4
    assert "…" not in stream.getvalue()
    assert "change" not in stream.getvalue()


@pytest.mark.slow
def test_a_comparison_resumes_where_it_stopped(
    fast: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    measure = api.evaluate

    def stop(model: Path, **options: Any) -> Any:
        if model.name.startswith("kmeans"):
            raise KeyboardInterrupt
        return measure(model, **options)

    over = "model.clustering=conv,kmeans"
    with monkeypatch.context() as patch:
        patch.setattr(comparing, "evaluate", stop)
        with pytest.raises(KeyboardInterrupt):
            api.compare("digits", over, out, set=fast)
    before = (out / "conv-seed0" / "weights.safetensors").stat().st_mtime_ns
    words = ["compare", "digits", "--over", over, "--out", str(out)]
    words += [word for change in fast for word in ("--set", change)]
    assert main(words) == 0
    assert (out / "conv-seed0" / "weights.safetensors").stat().st_mtime_ns == before
    printed = capsys.readouterr().out
    assert "run 2 of 2: model.clustering=kmeans, seed 0" in printed
    comparison = api.compare("digits", over, out, set=fast)
    for row in comparison.rows:
        stored = json.loads((row.runs[0].folder / "evaluation-test/evaluation.json").read_text())
        assert row.score("accuracy").mean == stored["scores"]["accuracy"]
        paired = row.runs[0].paired
        assert paired is not None
        assert row.score("accuracy").mean == pytest.approx(fmean(paired.values))
        assert row.clusters("used") is not None
    with pytest.raises(RecipeError, match="another recipe"):
        api.compare("digits", over, out, set=[*fast, "train.lr=0.5"])


@pytest.mark.slow
def test_a_comparison_stopped_within_a_training_ends_with_the_same_numbers(
    fast: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = "model.clustering=grid,linear"
    whole = api.compare("digits", over, tmp_path / "whole", set=fast)
    second_run = whole.rows[0].runs[0].epochs[-1]["step"] + 1
    steps, forward = itertools.count(1), ClassificationTask.forward

    def counting(self: ClassificationTask, batch: Any) -> dict[str, Tensor]:
        if next(steps) == second_run + 4:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(self, batch)

    out = tmp_path / "parts"
    with monkeypatch.context() as patch:
        patch.setattr(ClassificationTask, "forward", counting)
        with pytest.raises(Interrupted, match="repeat the same command to resume"):
            api.compare("digits", over, out, set=fast)
    checkpoints = out / "linear-seed0" / "checkpoints"
    assert [path.name for path in checkpoints.iterdir()] == ["step-5"]
    assert not (out / "linear-seed0" / "weights.safetensors").exists()
    parts = api.compare("digits", over, out, set=fast)
    for one, other in zip(whole.rows, parts.rows, strict=True):
        assert one.value == other.value
        assert one.difference == other.difference
        files = [row.runs[0].folder / "weights.safetensors" for row in (one, other)]
        assert files[0].read_bytes() == files[1].read_bytes()
        for name in ("accuracy", "f1_macro", "loss"):
            numbers = [getattr(row.runs[0].evaluation, name) for row in (one, other)]
            assert numbers[0] == numbers[1], name
    assert "://" not in (out / "comparison.html").read_text()
