"""One short run on digits that the end-to-end tests share."""

from pathlib import Path

import pytest

from pacavit_cli.main import main


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch; tests must not change it."""
    out = tmp_path_factory.mktemp("e2e") / "digits"
    assert main(["train", "digits", "--out", str(out), "--set", "train.epochs=1"]) == 0
    return out
