from __future__ import annotations

import os
from pathlib import Path

import pytest

from pacavit.utils.files import open_regular, read_bounded


def test_a_regular_file_and_a_link_to_one_are_read(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"12345")
    link.symlink_to(file)
    with open_regular(link) as opened:
        assert opened.read() == b"12345"
    assert read_bounded(file, 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_bounded(file, 4)


@pytest.mark.timeout(10)
def test_pipes_devices_and_folders_are_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(path)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "none", 1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
