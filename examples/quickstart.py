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

from pacavit import api

CLUSTERINGS = ("conv", "mlp")
RUNS = Path("runs")


def main() -> None:
    """Train and evaluate once for each clustering; print one table and what was written."""
    console = Console()
    table = Table(title="Handwritten digits, test images")
    table.add_column("clustering")
    for heading in ("accuracy", "precision", "recall", "F1"):
        table.add_column(heading, justify="right")

    runs = []
    for clustering in CLUSTERINGS:
        console.rule(f"{clustering} clustering")
        run = api.train(
            "digits",
            RUNS / f"quickstart-{clustering}",
            set=[f"model.clustering={clustering}"],
            overwrite=True,
            progress=True,
        )
        result = api.evaluate(run, progress=True)
        scores = (result.accuracy, result.precision_macro, result.recall_macro, result.f1_macro)
        table.add_row(clustering, *(f"{score:.4f}" for score in scores))
        runs.append(run)

    console.rule("result")
    console.print(table)
    console.print("Written:")
    for run in runs:
        for name in written(run):
            console.print(f"  {name}", highlight=False, soft_wrap=True)


def written(run: Path) -> list[str]:
    """The files of a run, its checkpoints in one line."""
    paths = sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file())
    files = [str(run / path) for path in paths if path.parts[0] != "checkpoints"]
    return [f"{run / 'checkpoints'}/", *files]


if __name__ == "__main__":
    main()
