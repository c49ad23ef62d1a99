"""The tables of networks side by side, from what ``pacavit bench`` recorded."""

from __future__ import annotations

from result_tables import RESULTS, named_table

from pacavit.bench.pages import load_text
from pacavit.bench.results import Benchmark, read_results
from pacavit.bench.tables import counts_table, growth_table, settings_of, speed_table
from pacavit.report.markdown import table

MISSING = "Not measured yet."


def _found(name: str) -> Benchmark | None:
    path = RESULTS / f"{name}.json"
    return read_results(path) if path.is_file() else None


@named_table("peers-counts")
def peers_counts() -> str:
    """Parameters and MACs of the networks of the paper's table, and the published figures."""
    found = _found("peers_counts")
    return MISSING if found is None else table(*counts_table(found))


@named_table("peers-speed")
def peers_speed() -> str:
    """Their throughput and memory; then the load of the machine."""
    found = _found("peers")
    if found is None:
        return MISSING
    return f"{table(*speed_table(found, settings_of(found)))}\n\n{load_text(found)}"


@named_table("attentions-counts")
def attentions_counts() -> str:
    """MACs of PaCa-ViT-S with other attentions, by image size."""
    found = _found("attentions_counts")
    return MISSING if found is None else table(*counts_table(found, with_published=False))


@named_table("attentions-growth")
def attentions_growth() -> str:
    """Exponents of N by which their costs grow."""
    found = _found("attentions") or _found("attentions_counts")
    return MISSING if found is None else table(*growth_table(found))


@named_table("attentions-speed")
def attentions_speed() -> str:
    """Their throughput and memory by image size; then the load of the machine."""
    found = _found("attentions")
    if found is None:
        return MISSING
    return f"{table(*speed_table(found, settings_of(found)))}\n\n{load_text(found)}"
