"""The numbers in the documents are those of the recorded results."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pacavit.report.publishing.published import published

ROOT = Path(__file__).parents[1]
LoadScript = Callable[[Path], ModuleType]
SIX = ("insertion", "deletion", "difference", "kept", "removed", "ROAD")


@pytest.fixture(scope="module")
def results(load_script: LoadScript) -> ModuleType:
    return load_script(ROOT / "docs" / "result_tables.py")


@pytest.fixture(scope="module")
def tables(results: ModuleType, load_script: LoadScript) -> ModuleType:
    load_script(ROOT / "docs" / "speed_tables.py")
    return load_script(ROOT / "docs" / "tables.py")


def pages() -> list[str]:
    found = (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))
    return [path.relative_to(ROOT).as_posix() for path in found]


@pytest.mark.parametrize("page", pages())
def test_tables_are_those_of_the_records(page: str, tables: ModuleType) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert tables.filled(text) == text, "run `make tables`"


def test_every_table_is_in_a_page(tables: ModuleType, results: ModuleType) -> None:
    shown = [name for page in pages() for name in tables.names((ROOT / page).read_text("utf-8"))]
    assert sorted(shown) == sorted(results.TABLES)


def test_a_changed_number_is_replaced(tables: ModuleType, results: ModuleType) -> None:
    page = "a\n\n<!-- table: headline -->\n\n| 0.99 |\n\n<!-- end -->\n\nb\n"
    filled = tables.filled(page)
    assert "0.99" not in filled
    assert results.headline() in filled
    assert filled.startswith("a\n")
    assert filled.endswith("<!-- end -->\n\nb\n")
    with pytest.raises(KeyError, match="nothing"):
        tables.filled(page.replace("headline", "nothing"))


def test_numbers_in_results_stand_in_generated_tables(tables: ModuleType) -> None:
    """Tables by hand are listed here, with what the page says of their record."""
    by_hand = {
        "README.md": ["where"],
        "docs/results/accuracy.md": ["training cells per class"],
    }
    for page in (name for name in pages() if name == "README.md" or "/results/" in name):
        text = tables.MARKED.sub("", (ROOT / page).read_text(encoding="utf-8"))
        first_cells = re.findall(r"^\| *(.*?) *\|.*\n\|---", text, re.MULTILINE)
        assert first_cells == by_hand.get(page, [])
    accuracy = (ROOT / "docs/results/accuracy.md").read_text(encoding="utf-8")
    assert "These runs were not kept\nas a recorded file" in accuracy


def test_published_results_are_recorded() -> None:
    """The list in the package has the scores of ``cifar10_cpu.json``."""
    recorded = json.loads((ROOT / "benchmarks/results/cifar10_cpu.json").read_text("utf-8"))
    scores = [
        (entry["training_minutes"], *(round(entry["test"][name], 4) for name in names))
        for entry in recorded
        for names in [("accuracy", "precision_macro", "recall_macro", "f1_macro")]
    ]
    listed = [(entry.minutes, *entry.scores.values()) for entry in published()]
    assert sorted(listed) == sorted(scores)


def sentence(page: str) -> str:
    """The text of a page in one line, without bold."""
    return " ".join((ROOT / page).read_text(encoding="utf-8").replace("**", "").split())


def difference(evaluation: Any, other: str, measure: str) -> list[float]:
    """The mean paired difference of a method to the default one, with its interval."""
    (row,) = (row for row in evaluation["methods"] if row["method"] == other)
    found: list[float] = row["minus cluster_contributions"][measure]
    return found


def test_claims_about_grad_cam(results: ModuleType) -> None:
    """The default map is better in six measures, and Grad-CAM in two, on all six networks."""
    better = {"deletion": -1, "removed": -1, "randomized": -1, "sensitivity": -1}
    for evaluation in results.evaluations().values():
        for measure in (*SIX, "randomized", "sensitivity"):
            ends = difference(evaluation, "grad_cam", measure)[1:]
            signs = [better.get(measure, 1) * end for end in ends]
            assert max(signs) < 0 if measure in SIX else min(signs) > 0
    for page in ("README.md", "docs/index.md", "docs/results/explanations.md"):
        text = sentence(page)
        assert "every measure with all" not in text
        assert re.search(r"(all|the) six measures (of altered images|that alter the image)", text)
        assert "depend more on the weights" in text or "depends more on the weights" in text


def test_claims_about_randomized_weights(results: ModuleType) -> None:
    ranges = {}
    for method in ("cluster_contributions", "relevance"):
        values = [
            results.found(one, method)["randomized"][0] for one in results.evaluations().values()
        ]
        ranges[method] = f"{min(values):.2f} to {max(values):.2f}"
    text = sentence("docs/results/explanations.md")
    assert f"a rank correlation of {ranges['cluster_contributions']} with the map of" in text
    assert f"Relevance, one half of the map, has one of {ranges['relevance']}" in text


def test_claims_about_shapes(results: ModuleType) -> None:
    """Relevance against the default map, and where the difference is significant."""
    shapes = results.shapes()
    significant = {
        measure
        for measure in (*SIX, "pointing")
        if min(ends := difference(shapes, "relevance", measure)[1:]) > 0 or max(ends) < 0
    }
    assert significant == {"deletion", "difference", "kept", "ROAD", "pointing"}
    kept = {
        method: f"{results.found(shapes, method)['kept'][0]:.3f}"
        for method in ("cluster_contributions", "relevance")
    }
    text = sentence("docs/guides/explain.md")
    assert f"{kept['relevance']} against {kept['cluster_contributions']}" in text


def test_claims_about_speed(results: ModuleType) -> None:
    ratios = [row["ratio"][1] for row in results.record("clustering_speed")["rows"]]
    claim = f"{min(ratios):.0f} to {max(ratios):.0f} times as fast as a loop over scikit-learn"
    assert claim in sentence("docs/concepts/clusterings.md")
