"""What ``pacavit convert`` says."""

from pathlib import Path

import pytest

from pacavit.engine.weights.original import Conversion
from pacavit.report.publishing.conversion import print_conversion


def test_all_three_lists_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    conversion = Conversion(
        path=Path("out.safetensors"),
        original=None,
        model="pacavit_tiny",
        settings={"num_clusters": (200, 200, 200, 0)},
        loaded=("a", "b"),
        reinitialised=("head.weight",),
        unexpected=(),
    )
    print_conversion(conversion)
    assert capsys.readouterr().out.splitlines() == [
        "model: none of the published ones, here pacavit_tiny(num_clusters=(200, 200, 200, 0))",
        "loaded: 2 of 3 weights",
        "re-initialized, random now: 1",
        "  head.weight",
        "unexpected, left out: none",
        "written: out.safetensors",
    ]
