"""The quickstart of the README: four trainings, each at least 0.98 on the test images."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.mark.slow
@pytest.mark.timeout(1800)  # two and a half minutes of one free core
def test_all_clusterings_learn_digits_and_every_named_file_is_there(
    load_example: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    # A third of the recipe's epochs already reach what is asked of all.
    monkeypatch.setattr(sys, "argv", ["quickstart.py", "--epochs", "4"])
    load_example("quickstart").main()

    named = re.findall(r"^(?:run|report): +(\S+)", capsys.readouterr().out, re.MULTILINE)
    names = ("conv", "mlp", "kmeans", "hierarchical")
    out = "runs/quickstart"
    assert named == [*(f"{out}/{name}-seed0/" for name in names), f"{out}/comparison.html"]
    assert [path for path in named if not Path(path).exists()] == []
    text = Path(out, "comparison.md").read_text(encoding="utf-8")
    pictures = re.findall(r"\]\((.+?)\)", text)
    assert len(pictures) == 2
    assert all(Path(out, picture).is_file() for picture in pictures)

    accuracies = {}
    for name in names:
        folder = Path(out, f"{name}-seed0")
        assert (folder / "weights.safetensors").is_file()
        record = json.loads((folder / "evaluation-test" / "evaluation.json").read_text())
        accuracies[name] = record["scores"]["accuracy"]
        assert f"{accuracies[name]:.4f}" in text
    assert min(accuracies.values()) >= 0.98, accuracies
