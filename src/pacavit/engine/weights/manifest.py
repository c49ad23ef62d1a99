"""The manifest of a checkpoint: names, sizes and SHA-256 of its files, and its step."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import pydantic

from pacavit.errors import CheckpointError
from pacavit.utils import files
from pacavit.utils.parsing import read_json
from pacavit.utils.text import one_line

__all__ = ["MANIFEST", "make", "verify"]

MANIFEST = "manifest.json"
_FORMAT_VERSION = 1


class _File(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")

    size: Annotated[int, pydantic.Field(ge=0)]
    sha256: str


class _Manifest(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True, extra="forbid")

    version: int
    step: int
    files: dict[str, _File]


def make(contents: Mapping[str, bytes], step: int) -> bytes:
    """The manifest of files, as bytes.

    Args:
        contents: of the files, by name.
        step: of the checkpoint.
    """
    entries = {
        name: _File(size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for name, data in contents.items()
    }
    made = _Manifest(version=_FORMAT_VERSION, step=step, files=entries)
    return made.model_dump_json(indent=2).encode()


def verify(folder: Path, step: int, *, only: str | None = None) -> bool:
    """Compare the files of a checkpoint with its manifest.

    Args:
        folder: of the checkpoint.
        step: in the name of the checkpoint.
        only: check this file alone.

    Returns:
        False if there is no manifest; releases up to 0.1 wrote none.

    Raises:
        CheckpointError: names the first file that is missing or was changed.
    """
    path = folder / MANIFEST
    if not path.exists():
        return False
    try:
        manifest = _Manifest.model_validate(read_json(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is broken: {one_line(error)}") from error
    if manifest.version != _FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {manifest.version}, this pacavit reads {_FORMAT_VERSION}"
        )
    if manifest.step != step:
        raise CheckpointError(
            f"{folder} was written as the checkpoint of step {manifest.step}, and was renamed"
        )
    for name in manifest.files if only is None else [only]:
        if name not in manifest.files:
            raise CheckpointError(f"{folder / name} is not in {MANIFEST}")
        _verify_file(folder / name, manifest.files[name])
    return True


def _verify_file(path: Path, expected: _File) -> None:
    try:
        with files.open_regular(path) as file:
            size = path.stat().st_size
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    if size == expected.size and digest == expected.sha256:
        return
    if size < expected.size:
        fault = f"it is truncated to {size} of {expected.size} bytes"
    else:
        fault = "it is not the file that was written"
    if files.looks_pickled(path):
        fault += ", but a pickled one, which could run code and is not opened"
    raise CheckpointError(f"{path} is broken: {fault}")
