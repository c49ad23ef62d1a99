"""What the documents tell a reader to type works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pacavit

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/clusterings.md",
    "docs/data.md",
    "docs/distributed.md",
    "docs/explanations.md",
)
WITHOUT_PYTHON = {"docs/distributed.md"}
FENCED = re.compile(r"^```(?P<language>\w+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def snippets(document: str, language: str) -> list[tuple[int, str]]:
    """Fenced blocks of one language, each with the number of lines before its body."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start("body")), match["body"])
        for match in FENCED.finditer(text)
        if match["language"] == language
    ]


@pytest.mark.parametrize("document", sorted(set(DOCUMENTS) - WITHOUT_PYTHON))
def test_python_snippets_run(document: str, tmp_path: Path) -> None:
    """From top to bottom as one script, as a reader would paste them, in an empty folder."""
    lines: list[str] = []
    for start, body in snippets(document, "python"):
        lines += [""] * (start - len(lines))  # a traceback then names the line of the document
        lines += body.splitlines()
    assert lines, f"no python snippets in {document}"
    script = tmp_path / f"{Path(document).stem}.py"
    script.write_text("\n".join(lines), encoding="utf-8")
    source = str(Path(pacavit.__path__[0]).parent)
    done = subprocess.run(
        [sys.executable, "-W", "error", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_exist(document: str) -> None:
    from pacavit_cli.main import app

    text = (ROOT / document).read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    verbs = {
        command.name or getattr(command.callback, "__name__", "").replace("_", "-")
        for command in app.registered_commands
    }
    commands = "\n".join(body for _, body in snippets(document, "sh"))
    commands += "\n".join(re.findall(r"`([^`\n]+)`", text))
    assert set(re.findall(r"^make (\w+)", commands, re.MULTILINE)) <= targets
    named = re.findall(r"(?:^pacavit|-m pacavit_cli) ([a-z][a-z-]+)", commands, re.MULTILINE)
    assert set(named) <= verbs
