"""The promise of the README: two trainings, each at least 0.98 on the test images."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.mark.slow
@pytest.mark.timeout(1800)  # two minutes on two free cores
def test_both_clusterings_learn_digits_and_every_named_file_is_there(
    load_example: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    load_example("quickstart").main()

    named = re.findall(r"^(?:run|report): +(\S+)", capsys.readouterr().out, re.MULTILINE)
    assert named == ["runs/quickstart-conv/", "runs/quickstart-mlp/", "runs/quickstart.md"]
    report = Path("runs/quickstart.md")
    pictures = re.findall(r"\]\((.+?)\)", report.read_text(encoding="utf-8"))
    assert len(pictures) == 4
    files = [Path(name) for name in named] + [report.parent / name for name in pictures]
    assert [path for path in files if not path.exists()] == []

    accuracies = {}
    for run in named[:2]:
        folder = Path(run)
        assert (folder / "weights.safetensors").is_file()
        record = json.loads((folder / "evaluation-test" / "evaluation.json").read_text())
        accuracies[run] = record["accuracy"]
        assert f"{record['accuracy']:.4f}" in report.read_text(encoding="utf-8")
    assert min(accuracies.values()) >= 0.98, accuracies
