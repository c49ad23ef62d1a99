"""Package the weights of a run: writes them with their model card into the source tree.

Command::

    python benchmarks/package_weights.py RUN NAME [--data ROOT]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pacavit.report.publishing.packaging import package_weights

WEIGHTS = Path(__file__).parents[1] / "src" / "pacavit" / "weights"


def main() -> None:
    """Read the command line, write the two files and name them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("name", help="of the weights, for example cifar10_nano_conv")
    parser.add_argument("--data", type=Path, help="folder with the data set, instead of the run's")
    parser.add_argument("--dest", type=Path, default=WEIGHTS, help="folder for the files")
    arguments = parser.parse_args()
    files = package_weights(
        arguments.run, arguments.name, arguments.dest, data=arguments.data, progress=True
    )
    for file in files:
        print(f"wrote {file} ({file.stat().st_size / 1e3:,.0f} kB)")  # noqa: T201


if __name__ == "__main__":
    main()
