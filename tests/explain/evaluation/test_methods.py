from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from pacavit.data import Batch
from pacavit.errors import PacavitError
from pacavit.explain.choice import NUMBERS
from pacavit.explain.evaluation.methods import ExplanationScores, evaluate_methods
from pacavit.explain.methods.base import Method
from pacavit.report.explanation.evaluation import (
    UNFINISHED,
    ExplanationReport,
    check_report_folder,
    print_explanation_report,
    write_explanation_report,
)
from pacavit.utils.command import pacavit_command
from pacavit.utils.files import read_tensors

COMMAND = pacavit_command("explain-evaluate", "<model>")
MACHINE = {"versions": {"torch": "2"}, "cpu": "fast"}


class Corner(nn.Module):
    """Knows two classes by the brightness of the upper left quarter alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(16, 16))
        with torch.no_grad():
            self.weight[:8, :8] = 1

    def forward(self, images: Tensor) -> Tensor:
        bright = (images.mean(1) * self.weight).mean((1, 2)) * 20
        return torch.stack([bright, -bright], 1)


class Told(Method):
    """Its map is the weights of the network, for either class."""

    class_specific = False

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        weight = self.model.get_parameter("weight")
        return weight.detach().expand(len(images), -1, -1).clone()


class Opposite(Told):
    """What matters least first."""

    class_specific = True

    def explain(self, images: Tensor, classes: Tensor) -> Tensor:
        return -super().explain(images, classes)


def batches() -> list[Batch]:
    images = 0.05 * torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    bright = torch.full((16, 16), -1 / 3)
    bright[:8, :8] = 1  # the mean color is no evidence
    images[:4] += bright
    images[4:] -= bright
    labels = torch.tensor([0, 0, 0, 1, 1, 1])  # the prediction of the fourth is incorrect
    numbers = torch.arange(6)
    return [Batch(images[part], labels[part], numbers[part]) for part in (slice(4), slice(4, None))]


def in_the_corner(indices: Tensor) -> Tensor:
    objects = torch.zeros(len(indices), 16, 16, dtype=torch.bool)
    objects[:, :8, :8] = True
    return objects


@pytest.fixture(scope="module")
def bench() -> ExplanationScores:
    methods: dict[str, type[Method]] = {"told": Told, "opposite": Opposite}
    return evaluate_methods(Corner().eval(), methods, batches(), objects=in_the_corner, steps=8)


def test_a_faithful_map_beats_an_unfaithful_one_on_every_measure(bench: ExplanationScores) -> None:
    assert bench.num_images == 6
    assert bench.accuracy == pytest.approx(5 / 6)
    told, opposite = bench.rows
    for measure, better in (
        ("insertion", 1),
        ("deletion", -1),
        ("difference", 1),
        ("kept", 1),
        ("removed", -1),
        ("pointing", 1),
        ("energy", 1),
    ):
        change = opposite.minus(told, "predicted", measure)
        assert change is not None
        assert better * change.mean < 0, measure
    assert told.values["predicted"]["pointing"].tolist() == [1] * 6


def test_the_true_class_is_followed_where_it_is_not_top1(
    bench: ExplanationScores,
) -> None:
    predicted, true = (bench.rows[0].values[target]["kept"] for target in ("predicted", "true"))
    assert predicted.tolist() == [1, 1, 1, 1, 1, 1]
    assert true.tolist() == [1, 1, 1, 0, 1, 1]
    assert bench.rows[0].values["predicted"]["randomized"].abs().max() < 0.5


def test_half_precision_changes_the_predictions_and_not_the_maps(bench: ExplanationScores) -> None:
    methods: dict[str, type[Method]] = {"told": Told}
    small: list[Tensor] = []

    class Watched(Corner):
        def forward(self, images: Tensor) -> Tensor:
            small.append(torch.tensor(torch.is_autocast_enabled("cpu")))
            return super().forward(images)

    network = Watched().eval()
    half = evaluate_methods(
        network, methods, batches(), objects=in_the_corner, steps=8, precision="bf16"
    )
    for name, values in half.rows[0].values["predicted"].items():
        expected = bench.rows[0].values["predicted"][name]
        torch.testing.assert_close(values, expected, atol=0.02, rtol=0, equal_nan=True)
    assert any(small)
    assert not all(small)


def test_pages_have_all_methods_and_numbers(bench: ExplanationScores, tmp_path: Path) -> None:
    report = ExplanationReport("<model>", "six corners", COMMAND, bench, MACHINE, "abc")
    files = write_explanation_report(report, tmp_path)
    assert [file.name for file in files] == [
        "faithfulness.html",
        "faithfulness.md",
        "faithfulness.json",
        "faithfulness.svg",
        "faithfulness.safetensors",
    ]
    page = files[0].read_text("utf-8")
    assert "&lt;model&gt;" in page
    assert "<model>" not in page
    assert "opposite" in page
    assert "fast" in page
    numbers = json.loads(files[2].read_text("utf-8"))
    assert numbers["methods"][0]["predicted"]["kept"] == [1, 1, 1]
    mean, low, high = numbers["methods"][1]["minus told"]["insertion"]
    assert low <= mean <= high < 0
    values, _ = read_tensors(files[4])
    assert torch.equal(values["told/true/kept"], bench.rows[0].values["true"]["kept"])
    text = files[1].read_text("utf-8")
    assert "no significant difference" in text or "(-" in text
    console = Console(width=80, record=True)
    print_explanation_report(report, console=console)
    printed = console.export_text()
    assert "…" not in printed
    assert "opposite" in printed


def test_an_interrupted_replacement_is_accepted(tmp_path: Path) -> None:
    (tmp_path / NUMBERS).write_text("{}")
    with pytest.raises(PacavitError, match="give --overwrite"):
        check_report_folder(tmp_path, overwrite=False)
    check_report_folder(tmp_path, overwrite=True)
    (tmp_path / UNFINISHED).mkdir()
    check_report_folder(tmp_path, overwrite=False)


OLD_FILES = ("bench.html", "bench.md", "bench.json", "bench.svg", "bench.safetensors")


def test_results_of_the_release_before_are_refused_or_replaced(
    bench: ExplanationScores, tmp_path: Path
) -> None:
    for name in OLD_FILES:
        (tmp_path / name).write_text("{}")
    with pytest.raises(PacavitError, match="holds an evaluation of explanations; give --overwrite"):
        check_report_folder(tmp_path, overwrite=False)
    check_report_folder(tmp_path, overwrite=True)
    report = ExplanationReport("model", "six corners", COMMAND, bench, MACHINE, "abc")
    files = write_explanation_report(report, tmp_path)
    assert set(tmp_path.iterdir()) == set(files)


def test_unfinished_results_of_the_release_before_are_refused_or_replaced(
    bench: ExplanationScores, tmp_path: Path
) -> None:
    (tmp_path / "bench.unfinished").mkdir()
    (tmp_path / "bench.unfinished" / "settings.json").write_text("{}")
    with pytest.raises(PacavitError, match=r"bench\.unfinished.* cannot be resumed; give --over"):
        check_report_folder(tmp_path, overwrite=False)
    check_report_folder(tmp_path, overwrite=True)
    report = ExplanationReport("model", "six corners", COMMAND, bench, MACHINE, "abc")
    files = write_explanation_report(report, tmp_path)
    assert set(tmp_path.iterdir()) == set(files)
    record = json.loads((tmp_path / NUMBERS).read_text())
    assert record["command"] == COMMAND.json
    assert record["weights_sha256"] == "abc"
