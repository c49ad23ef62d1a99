"""A clustering in a stranger's file: listed, checked, trained, evaluated; no other change."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from pacavit_cli.main import main

SOURCE = '''
from torch import nn

from pacavit.clustering.base import CLUSTERINGS, Clustering


@CLUSTERINGS.register("stranger")
class Stranger(Clustering):
    """Scores against learned prototypes, scaled by an option."""

    order_free = True
    spatial = False

    def __init__(self, dim, num_clusters, *, scale=1.0):
        super().__init__(dim, num_clusters)
        self.prototypes = nn.Linear(dim, num_clusters)
        self.scale = scale

    def scores(self, x, grid):
        return self.scale * self.prototypes(x).transpose(1, 2)
'''

# All in one process: each would load torch anew.
COMMANDS = """
import json
import sys

from pacavit_cli.main import main

for words in json.loads(sys.argv[1]):
    assert main(["--plugin", "stranger.py", *words]) == 0, words

from pacavit import CLUSTERINGS
from pacavit.testing import check_clustering

check_clustering(CLUSTERINGS.get("stranger"), {"scale": 2.0})
"""


@pytest.mark.slow
def test_a_plugin_clustering_trains(
    fast: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "stranger.py").write_text(SOURCE)

    settings = (
        "model.clustering=stranger",
        "model.clustering_options={scale = 2.0}",
        *fast,
    )
    options = [word for setting in settings for word in ("--set", setting)]
    commands = (
        ["list", "clusterings"],
        ["train", "digits", "--out", "run", *options],
        ["evaluate", "run"],
    )
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    listed, _, rest = done.stdout.partition("epoch 1/1")
    assert "stranger" in listed
    assert "accuracy" in rest.rpartition("trained model in")[2]

    # The run names the file, and so do the commands that repeat it.
    digest = hashlib.sha256(SOURCE.encode()).hexdigest()
    run = tmp_path / "run"
    environment = json.loads((run / "environment.json").read_text())
    assert environment["plugins"] == {"stranger.py": digest}
    page = (run / "report.html").read_text()
    assert "pacavit --plugin stranger.py train digits --out DIR" in page
    assert "pacavit --plugin stranger.py evaluate DIR" in page
    assert digest in page
    record = json.loads((run / "evaluation-test" / "evaluation.json").read_text())
    assert record["command"][1:4] == ["--plugin", str(tmp_path / "stranger.py"), "evaluate"]

    # Another version of the file is used, with a warning of one line.
    (tmp_path / "stranger.py").write_text(SOURCE + "# changed\n")
    changed = hashlib.sha256((SOURCE + "# changed\n").encode()).hexdigest()
    done = subprocess.run(
        [sys.executable, "-m", "pacavit_cli", "--plugin", "stranger.py", "evaluate", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "stranger.py" in line]
    assert line == (
        f"warning: the plug-in stranger.py (SHA-256 {changed[:8]}…) is not the one that run was "
        f"trained with, stranger.py (SHA-256 {digest[:8]}…): results may differ"
    )

    # Without the file, which this process has not loaded, the error names it.
    monkeypatch.chdir(tmp_path)
    (run / "weights.safetensors").rename(run / "moved.safetensors")
    resume = ["train", "digits", "--out", "run", "--resume", *options]
    for command in (["evaluate", "run"], ["evaluate", "run/moved.safetensors"], resume):
        assert main(command) == 2, command
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        for part in ("plug-in stranger.py", digest[:8], "--plugin", "unknown clustering"):
            assert part in error, (command, error)
