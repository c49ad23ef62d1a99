"""Every verb that prints, on terminals whose encoding has few characters."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from pacavit import api
from pacavit.compare.results import Comparison, Row, RunResult
from pacavit.engine.evaluate import Evaluation
from pacavit.utils.command import pacavit_command
from pacavit_cli.main import main


@pytest.fixture
def images(tmp_path: Path) -> dict[str, str]:
    for name in ("café.png", "日本.png"):
        Image.effect_noise((40, 40), 60).save(tmp_path / name)
    (tmp_path / "broken é.png").write_text("no image")
    return {name: str(tmp_path / f"{name}.png") for name in ("café", "日本", "broken é")}


class Terminal:
    """Runs commands and collects what they print, with live lines as on a terminal."""

    def __init__(self, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.encoding, self.raw = encoding, io.BytesIO()
        self.accented = "\\xe9" if encoding == "ascii" else "é"
        for name in ("stdout", "stderr"):
            stream = io.TextIOWrapper(self.raw, encoding, errors="strict", write_through=True)
            monkeypatch.setattr(sys, name, stream)
        monkeypatch.setenv("FORCE_COLOR", "1")

    def __call__(self, *words: str, code: int = 0) -> str:
        start = len(self.raw.getvalue())
        assert main(words) == code
        return self.raw.getvalue()[start:].decode(self.encoding)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1"])
def test_verbs_that_show_bars_and_names(
    encoding: str,
    digits_run: Path,
    images: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, terminal = str(digits_run), Terminal(encoding, monkeypatch)
    assert "digits" in terminal("list", "recipes")
    assert "Usage" in terminal("--help")
    printed = terminal("predict", run, *images.values(), code=2)
    assert "#" in printed
    assert f"caf{terminal.accented}.png" in printed
    assert r"\u65e5\u672c.png" in printed
    assert f"broken {terminal.accented}.png is not an image" in printed
    out = tmp_path / "why é"
    printed = terminal("explain", run, images["café"], "--out", str(out))
    assert f"why {terminal.accented}" in printed


def test_all_other_verbs(
    digits_run: Path,
    fast: tuple[str, ...],
    images: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, terminal = str(digits_run), Terminal("ascii", monkeypatch)
    assert '"error": null' in terminal("predict", run, images["café"], "--json")
    assert "macro" in terminal("evaluate", run, "--out", str(tmp_path / "é"))
    words = ["explain", run, images["café"], images["broken é"], "--out", str(tmp_path / "why é")]
    assert r"broken \xe9.png is not an image" in terminal(*words, code=2)
    changes = [word for change in fast for word in ("--set", change)]
    printed = terminal("train", "digits", *changes, "--out", str(tmp_path / "run"))
    assert "images/s" in printed
    scores = dict.fromkeys(("accuracy", "precision_macro", "recall_macro", "f1_macro"), 0.5)
    evaluation = Evaluation("classification", scores, (), {}, 4, 1.0)
    epoch = {"images_per_second": 1.0, "elapsed": 1.0, "val_accuracy": 0.5}
    found = RunResult("é", 0, Path("é"), evaluation, None, [epoch], 1, 1)
    command = pacavit_command("compare", "digits")
    compared = Comparison(("model.é",), "digits", command, (Row("é", [found], None),))
    monkeypatch.setattr(api, "compare", lambda *_, **__: compared)
    printed = terminal("compare", "digits", "--over", "model.é=a", "--out", "é")
    assert r"comparison in \xe9/" in printed
    assert "accuracy" in terminal("reproduce")
    measured = SimpleNamespace(scores=dict.fromkeys(scores, 1.0), num_images=9)
    classifier = next(entry for entry in api.published() if "accuracy" in entry.scores)
    monkeypatch.setattr(api, "reproduce", lambda *_, **__: (classifier, measured))
    assert "is +-0." in terminal("reproduce", "x")
