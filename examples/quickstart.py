r"""Train PaCa-ViT on handwritten digits with four clusterings, and compare them on the test images.

``make quickstart`` runs this: four trainings of pacavit_nano, about three minutes in all on two CPU
cores, without a download. The same in the shell::

    pacavit compare digits --out runs/quickstart \
        --over model.clustering=conv,mlp,kmeans,hierarchical

``--epochs 4`` trains a third as long; each is still right at least 98 times in 100.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from pacavit import api
from pacavit.compare.pages import PAGE, TEXT, print_comparison

OUT = Path("runs") / "quickstart"
OVER = "model.clustering=conv,mlp,kmeans,hierarchical"


def main() -> None:
    """Train and measure with each clustering; print one table and what was written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--epochs", type=int, help="of each training; the recipe's if not given")
    arguments = parser.parse_args()
    changes = [] if arguments.epochs is None else [f"train.epochs={arguments.epochs}"]
    console = Console()
    comparison = api.compare("digits", OVER, OUT, set=changes, progress=True)
    console.rule("result")
    print_comparison(comparison, console=console)
    for row in comparison.rows:
        for run in row.runs:
            console.print(f"run:    {run.folder}/ (weights, report.html)", highlight=False)
    console.print(f"report: {OUT / PAGE} (and {OUT / TEXT})", highlight=False)


if __name__ == "__main__":
    main()
