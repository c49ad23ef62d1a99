"""Train PaCa-ViT on handwritten digits with two clusterings, and compare them on the test images.

``make quickstart`` runs this: two trainings of pacavit_nano, about two minutes in all on two CPU
cores, without a download. The same in the shell, for each clustering::

    pacavit train digits --set model.clustering=conv --out runs/quickstart-conv --overwrite
    pacavit evaluate runs/quickstart-conv
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from pacavit import Evaluation, api

CLUSTERINGS = ("conv", "mlp")
SCORES = {
    "accuracy": "accuracy",
    "precision": "precision_macro",
    "recall": "recall_macro",
    "F1": "f1_macro",
}
TITLE = "PaCa-ViT on handwritten digits, test images"
RUNS = Path("runs")
REPORT = RUNS / "quickstart.md"


def main() -> None:
    """Train and evaluate once for each clustering; print one table and what was written."""
    console = Console()
    results: dict[Path, tuple[str, Evaluation]] = {}
    for clustering in CLUSTERINGS:
        console.rule(f"{clustering} clustering")
        run = api.train(
            "digits",
            RUNS / f"quickstart-{clustering}",
            set=[f"model.clustering={clustering}"],
            overwrite=True,
            progress=True,
        )
        results[run] = clustering, api.evaluate(run, progress=True)

    console.rule("result")
    table = Table("clustering", title=TITLE)
    for heading in SCORES:
        table.add_column(heading, justify="right")
    for clustering, result in results.values():
        table.add_row(clustering, *scores(result))
    console.print(table)
    REPORT.write_text(markdown(results), encoding="utf-8")
    for run in results:
        console.print(f"run:    {run}/ (weights, report.html, evaluation-test/)", highlight=False)
    console.print(f"report: {REPORT}", highlight=False)


def scores(result: Evaluation) -> list[str]:
    """Accuracy and macro averages, as text."""
    return [f"{getattr(result, field):.4f}" for field in SCORES.values()]


def markdown(results: dict[Path, tuple[str, Evaluation]]) -> str:
    """The table, and where to look further."""
    lines = [f"# {TITLE}", "", "| clustering | " + " | ".join(SCORES) + " |", "|---" * 5 + "|"]
    for clustering, result in results.values():
        lines.append(f"| {clustering} | " + " | ".join(scores(result)) + " |")
    for run, (clustering, _) in results.items():
        lines += ["", f"## {clustering} clustering", "", f"![curves]({run.name}/curves.png)"]
        lines += ["", f"![confusion matrix]({run.name}/evaluation-test/confusion.png)"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
