"""A clustering in a stranger's file: listed, checked, trained, evaluated; no other change."""

import subprocess
import sys
from pathlib import Path

import pytest

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

CHECK = """
from pacavit import CLUSTERINGS, load_plugin
from pacavit.testing import check_clustering

load_plugin("stranger.py")
check_clustering(CLUSTERINGS.get("stranger"), {"scale": 2.0})
"""


@pytest.mark.slow
def test_a_strangers_clustering_trains(tmp_path: Path) -> None:
    (tmp_path / "stranger.py").write_text(SOURCE)

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    command = ("-m", "pacavit_cli", "--plugin", "stranger.py")
    assert "stranger" in run(*command, "list", "clusterings")
    run("-c", CHECK)
    settings = (
        "model.clustering=stranger",
        "model.clustering_options={scale = 2.0}",
        "train.epochs=1",
    )
    options = [word for setting in settings for word in ("--set", setting)]
    run(*command, "train", "digits", "--out", "run", *options)
    assert "accuracy" in run(*command, "evaluate", "run")
