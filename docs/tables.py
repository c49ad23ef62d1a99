"""Write the tables of the documents from the recorded results in ``benchmarks/results``.

::

    make tables

A page marks the place of a table by its name, a function of ``result_tables.py`` or of another file
``*_tables.py``, and everything between the two comments is replaced::

    <!-- table: NAME -->

    <!-- end -->

``tests/test_doc_tables.py`` fails if a page differs from the records.
"""

from __future__ import annotations

import re
from pathlib import Path

import bench_tables  # noqa: F401 (registers its tables)
import detection_tables  # noqa: F401 (likewise)
import segmentation_tables  # noqa: F401 (likewise)
import speed_tables  # noqa: F401 (likewise)
import study_tables  # noqa: F401 (likewise)
import training_tables  # noqa: F401 (likewise)
from result_tables import TABLES

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))
MARKED = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Rewrite every page whose tables differ from the records."""
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        new = filled(old)
        if new != old:
            page.write_text(new, encoding="utf-8")
            print(f"wrote {page.relative_to(ROOT)}")  # noqa: T201


def filled(text: str) -> str:
    """A page with all its tables made anew.

    Raises:
        KeyError: the page names a table that does not exist.
    """
    return MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found['name']]()}\n\n{found[3]}", text)


def names(text: str) -> list[str]:
    """The names of the tables in a page."""
    return [found["name"] for found in MARKED.finditer(text)]


if __name__ == "__main__":
    main()
