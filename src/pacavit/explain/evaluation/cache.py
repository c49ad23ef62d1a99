"""Intermediate results in files, so that an interrupted evaluation resumes where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import quote

from torch import Tensor

from pacavit.data import Batch
from pacavit.errors import CheckpointError, PacavitError
from pacavit.utils import files

__all__ = ["Cache", "Compute", "FileCache", "batch_key", "no_cache"]

Compute: TypeAlias = Callable[[], dict[str, Tensor]]
Cache: TypeAlias = Callable[[str, Compute], dict[str, Tensor]]
"""Returns the result stored for a key; if there is none, computes it with a function."""

_SETTINGS, _SUFFIX = "settings.json", ".safetensors"


def no_cache(_: str, compute: Compute) -> dict[str, Tensor]:
    """The ``Cache`` that stores nothing and computes every result."""
    return compute()


def batch_key(batch: Batch) -> str:
    """A hash of the images, labels and indices of a batch, for the keys of its results."""
    digest = hashlib.sha256()
    for tensor in (batch.images, batch.targets, batch.indices):
        digest.update(str((tensor.shape, tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


class FileCache:
    """A ``Cache`` with one file per result in a folder.

    Call ``begin`` first. Files are complete or absent. Nothing is written before the first result
    is computed.

    Args:
        folder: for the files, created when needed.
        overwrite: results of other settings may be removed.
        log: receives one line if stored results are reused.
    """

    def __init__(
        self,
        folder: Path,
        *,
        overwrite: bool = False,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.folder, self.overwrite, self.log = folder, overwrite, log
        self.settings: Mapping[str, Any] = {}

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Resume from the results in the folder if there are any.

        Args:
            settings: everything that influences the numbers, by readable name; JSON values.

        Raises:
            PacavitError: the folder holds results of other settings, and ``overwrite`` is off.
            CheckpointError: the settings in the folder cannot be read.
        """
        self.settings = json.loads(json.dumps(settings))
        path = self.folder / _SETTINGS
        if not path.is_file():
            return
        changed = _difference(_read_settings(path), self.settings)
        if changed is None:
            number = len(list(self.folder.glob(f"*{_SUFFIX}")))
            if self.log is not None:
                self.log(f"resuming the evaluation in {self.folder}, stored results: {number}")
            return
        if not self.overwrite:
            raise PacavitError(
                f"{self.folder} holds an unfinished evaluation with other settings: {changed}; "
                "repeat those to resume it, give --overwrite to start over, or choose another "
                "folder"
            )
        self.remove()

    def __call__(self, key: str, compute: Compute) -> dict[str, Tensor]:
        """The result stored under a key; if there is none, it is computed and stored.

        Raises:
            CheckpointError: a file is broken, or cannot be written.
        """
        path = self.folder / f"{quote(key, safe='')}{_SUFFIX}"
        if path.is_file():
            return _read_result(path)
        found = compute()
        # A safetensors file does not keep the order of its tensors.
        content = files.tensor_bytes(found, {"names": json.dumps(list(found))})
        with files.writing(path):
            if not (self.folder / _SETTINGS).is_file():
                settings = json.dumps(self.settings, indent=1) + "\n"
                files.replace_file(self.folder / _SETTINGS, settings.encode())
            files.replace_file(path, content)
        return found

    def remove(self) -> None:
        """Remove the folder with all results; the settings, which mark the folder, go last."""
        if self.folder.is_dir():
            with files.writing(self.folder):
                files.empty_folder(self.folder, last=_SETTINGS)
                self.folder.rmdir()


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"cannot read {path} ({error}); remove {path.parent}") from error
    return found


def _read_result(path: Path) -> dict[str, Tensor]:
    try:
        tensors, texts = files.read_tensors(path)
        return {name: tensors[name] for name in json.loads(texts["names"])}
    except (CheckpointError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is broken; remove it and repeat the command, which computes it again"
        ) from error


def _difference(stored: Mapping[str, Any], settings: Mapping[str, Any]) -> str | None:
    """The first setting that differs, as text; None if all are equal."""
    for name in dict.fromkeys((*settings, *stored)):
        before, now = stored.get(name), settings.get(name)
        if before != now:
            return f"{name} {_as_text(before)}, not {_as_text(now)}"
    return None


def _as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
