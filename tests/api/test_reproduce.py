from __future__ import annotations

from pathlib import Path

import pytest

from pacavit import api
from pacavit.api import comparing
from pacavit.report.publishing.published import Published
from pacavit_cli.main import main


@pytest.mark.slow
def test_a_published_number_is_trained_once_and_put_beside_the_old_one(
    fast: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    entry = Published(
        name="tiny",
        recipe="digits",
        changes=fast,
        data="digits",
        num_images=100,
        scores={"accuracy": 0.5, "f1_macro": 0.25},
        minutes=1.5,
        machine="abacus",
    )
    monkeypatch.setattr(comparing, "find_published", {"tiny": entry}.__getitem__)
    out = tmp_path / "run"
    assert main(["reproduce", "tiny", "--out", str(out)]) == 0
    before = (out / "weights.safetensors").stat().st_mtime_ns
    printed = capsys.readouterr().out
    old, found = api.reproduce("tiny", out)
    assert old is entry
    assert f"{found.accuracy - 0.5:+.4f}" in printed
    assert "±0.0980" in printed
    assert (out / "weights.safetensors").stat().st_mtime_ns == before


def test_without_a_name_all_numbers_are_listed_with_their_commands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["reproduce"]) == 0
    printed = capsys.readouterr().out
    for entry in api.published():
        assert entry.name in printed
        assert str(entry.command) in printed
