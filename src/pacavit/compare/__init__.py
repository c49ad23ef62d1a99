"""Comparisons of runs: one recipe with several values of a field."""

from pacavit.compare.pages import write_comparison
from pacavit.compare.plan import Plan, PlannedRun, make_plan
from pacavit.compare.results import Comparison, Row, RunResult, compare_runs, read_run

__all__ = [
    "Comparison",
    "Plan",
    "PlannedRun",
    "Row",
    "RunResult",
    "compare_runs",
    "make_plan",
    "read_run",
    "write_comparison",
]
