"""Parts of a bench that are measured already: a bench that was killed goes on after them."""

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

__all__ = ["BenchParts", "Keep", "batch_key", "measured_anew"]

Measure: TypeAlias = Callable[[], dict[str, Tensor]]
Keep: TypeAlias = Callable[[str, Measure], dict[str, Tensor]]
"""The numbers of the part of a name: those that are kept, or else what measuring gives now."""

_SETTINGS, _SUFFIX = "settings.json", ".safetensors"


def measured_anew(_: str, measure: Measure) -> dict[str, Tensor]:
    """A ``Keep`` that keeps nothing."""
    return measure()


def batch_key(batch: Batch) -> str:
    """A fingerprint of images, labels and positions: a part belongs to these and to no others."""
    digest = hashlib.sha256()
    for tensor in (batch.images, batch.targets, batch.indices):
        digest.update(str((tensor.shape, tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:32]


class BenchParts:
    """Keeps each part in a file of a folder; a ``Keep`` once it is told the settings.

    Files are whole or absent. Nothing is written before the first part is measured.

    Args:
        folder: for the parts, made if it is not there.
        overwrite: parts of other settings may be removed.
        tell: is given one line where parts are there to go on with.
    """

    def __init__(
        self,
        folder: Path,
        *,
        overwrite: bool = False,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.folder, self.overwrite, self.tell = folder, overwrite, tell
        self.settings: Mapping[str, Any] = {}

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Go on with the parts in the folder, if there are some.

        Args:
            settings: all that decides the numbers, by name for people; plain data.

        Raises:
            PacavitError: they are of other settings, and may not be removed.
        """
        self.settings = json.loads(json.dumps(settings))
        path = self.folder / _SETTINGS
        if not path.is_file():
            return
        changed = _difference(_read_settings(path), self.settings)
        if changed is None:
            number = len(list(self.folder.glob(f"*{_SUFFIX}")))
            if self.tell is not None:
                self.tell(f"going on with the bench in {self.folder}, parts measured: {number}")
            return
        if not self.overwrite:
            raise PacavitError(
                f"{self.folder} holds an unfinished bench of other settings: {changed}; repeat "
                "those to go on, give --overwrite to begin anew, or choose another folder"
            )
        self.remove()

    def __call__(self, name: str, measure: Measure) -> dict[str, Tensor]:
        """The numbers of a part, measured and written if they are not there.

        Raises:
            CheckpointError: a file is broken, or cannot be written.
        """
        path = self.folder / f"{quote(name, safe='')}{_SUFFIX}"
        if path.is_file():
            return _read_part(path)
        found = measure()
        # Files of tensors have an order of their own.
        content = files.tensor_bytes(found, {"names": json.dumps(list(found))})
        with files.writing(path):
            if not (self.folder / _SETTINGS).is_file():
                settings = json.dumps(self.settings, indent=1) + "\n"
                files.replace_file(self.folder / _SETTINGS, settings.encode())
            files.replace_file(path, content)
        return found

    def remove(self) -> None:
        """Remove the folder with all parts; the settings, by which it is known, last."""
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


def _read_part(path: Path) -> dict[str, Tensor]:
    try:
        tensors, texts = files.read_tensors(path)
        return {name: tensors[name] for name in json.loads(texts["names"])}
    except (CheckpointError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} is broken; remove it and repeat the command, which measures it again"
        ) from error


def _difference(stored: Mapping[str, Any], settings: Mapping[str, Any]) -> str | None:
    """The first setting that differs, in words."""
    for name in dict.fromkeys((*settings, *stored)):
        its, own = stored.get(name), settings.get(name)
        if its != own:
            return f"{name} {_words(its)}, not {_words(own)}"
    return None


def _words(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
