"""Compiled loops where nothing can be written, and in processes that were forked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from numba import config

import pacavit
from pacavit.clustering.functional.kernels import compiling

CLUSTER = """
import torch
from pacavit.clustering.functional import _kmeans
from pacavit.clustering.functional.kernels.lloyd import _nearest
x = torch.tensor([[[0.0], [1.0], [10.0], [11.0]]])
found = _kmeans.kmeans(x, 2, init="farthest")
print(found.labels.tolist(), _nearest.stats.cache_path)
"""

FORK = """
import os, sys, torch
from pacavit.clustering.functional import agglomerative, dbscan, gaussian_mixture, kmeans

x = torch.randn(4, 50, 6, generator=torch.Generator().manual_seed(0))

def labels():
    found = kmeans(x, 3), gaussian_mixture(x, 3), agglomerative(x, 3), dbscan(x, 1.5)
    return torch.stack([each.labels for each in found])

expected = labels()
child = os.fork()
if child == 0:
    torch.set_num_threads(1)  # as in a data loader's worker: torch's own threads do not survive
    os._exit(0 if torch.equal(labels(), expected) else 3)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, os.waitstatus_to_exitcode(status)
assert torch.equal(labels(), expected)
"""


def run(source: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def sealed(tmp_path: Path) -> dict[str, str]:
    """The environment of a copy of the package beside whose files nothing can be written.

    Root may write to read-only folders, so a file is where each cache folder would be made.
    """
    package = tmp_path / "installed" / "pacavit"
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.jpg")
    shutil.copytree(Path(pacavit.__file__).parent, package, ignore=ignored)
    for folder in (package, *package.rglob("*")):
        if folder.is_dir():
            (folder / "__pycache__").touch()
    nowhere = "/dev/null/nowhere"
    return {
        "PYTHONPATH": str(package.parent),
        "HOME": nowhere,
        "XDG_CACHE_HOME": nowhere,
        "NUMBA_CACHE_DIR": nowhere,
        "NUMBA_OPT": "0",  # nothing cached can be used: compiles in half of the time
        "PYTHONDONTWRITEBYTECODE": "1",
        "MPLCONFIGDIR": str(tmp_path),
    }


@pytest.mark.slow
def test_a_read_only_installation_caches_in_a_private_temporary_folder(
    sealed: dict[str, str], tmp_path: Path
) -> None:
    labels, folder = run(CLUSTER, **sealed, TMPDIR=str(tmp_path)).rsplit(" ", 1)
    assert labels == "[[0, 0, 1, 1]]"
    cache = Path(folder.strip())
    assert cache.parent.parent == tmp_path
    assert cache.parent.stat().st_mode & 0o777 == 0o700
    assert any(cache.glob("*.nbi"))


@pytest.mark.slow
def test_without_any_folder_to_write_to_loops_are_compiled_and_not_kept(
    sealed: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / f"pacavit-numba-{os.getuid()}").touch()
    labels, cache = run(CLUSTER, **sealed, TMPDIR=str(tmp_path)).rsplit(" ", 1)
    assert (labels, cache.strip()) == ("[[0, 0, 1, 1]]", "None")


@pytest.mark.parametrize("spoil", ["writable by others", "a link", "a file", "another user's"])
def test_a_folder_that_others_may_have_prepared_is_not_used(
    tmp_path: Path, spoil: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = config.CACHE_DIR
    folder = tmp_path / f"pacavit-numba-{os.getuid()}"
    with compiling._temporary_folder() as usable:
        assert usable
        assert str(folder) == config.CACHE_DIR
    assert before == config.CACHE_DIR
    folder.rmdir()
    if spoil == "writable by others":
        folder.mkdir()
        folder.chmod(0o777)
    elif spoil == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    elif spoil == "a file":
        folder.touch()
    else:
        folder.mkdir(mode=0o700)
        other = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: other)
        folder.rename(tmp_path / f"pacavit-numba-{other}")
    with compiling._temporary_folder() as usable:
        assert not usable
        assert before == config.CACHE_DIR


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_clusters_after_its_parent() -> None:
    run(FORK, OMP_NUM_THREADS="2", NUMBA_NUM_THREADS="2", NUMBA_THREADING_LAYER="omp")
