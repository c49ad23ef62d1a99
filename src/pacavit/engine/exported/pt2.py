"""Files of ``torch.export``, run by torch without the source of the network."""

from __future__ import annotations

import json
import re
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from pacavit.engine.exported.base import READERS, Reader
from pacavit.engine.exported.facts import INPUT, METADATA_KEY
from pacavit.errors import CheckpointError
from pacavit.utils import files
from pacavit.utils.text import one_line, shown

__all__ = ["EXTRA_FILE", "Pt2Reader"]

EXTRA_FILE = f"{METADATA_KEY}.json"
"""Of the archive, with the description."""
_SAMPLES = "data/sample_inputs/model.pt"
_PARTS = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|\.format_version|models/model\.json|"
    r"data/weights/weight_\d+|data/constants/tensor_\d+|"
    r"data/weights/model_weights_config\.json|data/constants/model_constants_config\.json|"
    rf"{re.escape(_SAMPLES)}|extra/{re.escape(EXTRA_FILE)}"
)
_TARGETS = re.compile(
    r"torch\.ops\.(aten|pacavit)\.[\w.]+|"
    r"torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|while_loop)|"
    r"_operator\.\w+|math\.\w+|torch\.sym_\w+|torch\._sym_\w+"
)
_EXPRESSION = re.compile(
    r"(?:[A-Z]\w*|'\w+'|(?:positive|integer|nonnegative|real)=|[\d(), .+*/-])*"
)


@READERS.register("pt2")
class Pt2Reader(Reader):
    """A .pt2 archive on the CPU.

    torch would unpickle some parts of an archive without restriction, evaluate the expressions of
    its sizes, and call whatever function of torch its graph names. An archive with such parts,
    expressions or names is refused before it is loaded.

    Args:
        path: of the file.

    Raises:
        CheckpointError: the file is broken, or could run code.
    """

    suffix = ".pt2"

    def __init__(self, path: Path) -> None:
        with files.reading(shown(path)):
            data = path.read_bytes()
        try:
            self.text = _check_archive(data, path)
            program = torch.export.load(BytesIO(data))
        except CheckpointError:
            raise
        except Exception as error:  # torch raises errors of many classes for broken archives
            raise CheckpointError(
                f"{shown(path)} is truncated or no .pt2 file that torch {torch.__version__} reads "
                f"({one_line(error)[:160]}); export it again"
            ) from error
        # Guards are code of the file; the sizes that they would check are checked by the engine.
        self.module = program.module(check_guards=False)
        values = {
            node.name: node.meta["val"] for node in program.graph.find_nodes(op="placeholder")
        }
        self.inputs = {
            name: tuple(side if isinstance(side, int) else None for side in values[name].shape)
            for name in program.graph_signature.user_inputs
            if isinstance(name, str) and name == INPUT
        }

    @torch.no_grad()
    def run(self, images: NDArray[Any]) -> list[NDArray[Any]]:
        """The outputs, in order."""
        return [each.numpy() for each in self.module(torch.from_numpy(images))]


def _check_archive(data: bytes, path: Path) -> str | None:
    """The description in an archive; CheckpointError if it holds anything that could run code."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        parts = {name.partition("/")[2]: name for name in archive.namelist()}
        strange = [name for name in parts if not _PARTS.fullmatch(name)]
        if strange:
            raise _unsafe(path, f"it holds {shown(strange[0])}")

        def content(name: str) -> Any:
            return json.loads(archive.read(parts[name]))

        for kind in ("weights", "constants"):
            config = content(f"data/{kind}/model_{kind}_config.json")["config"]
            if any(entry["use_pickle"] for entry in config.values()):
                raise _unsafe(path, f"it holds pickled {kind}")
        for key, value in _strings(content("models/model.json")):
            allowed = _TARGETS if key == "target" else _EXPRESSION
            if not allowed.fullmatch(value):
                raise _unsafe(path, f"its graph has the {key} {shown(value[:80])}")
        if _SAMPLES in parts:
            # torch reads it in this way first, and only if that fails without restriction.
            torch.load(BytesIO(archive.read(parts[_SAMPLES])), weights_only=True)
        extra = parts.get(f"extra/{EXTRA_FILE}")
        return None if extra is None else archive.read(extra).decode()


def _unsafe(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{shown(path)} is not opened, because it could run code: {why}; export the run folder "
        "again"
    )


def _strings(content: Any) -> list[tuple[str, str]]:
    """The functions that the nodes of a serialized graph call, and the expressions in it."""
    found: list[tuple[str, str]] = []
    stack = [content]
    while stack:
        each = stack.pop()
        if isinstance(each, dict):
            for key in ("target", "expr_str"):
                if isinstance(each.get(key), str) and (key == "expr_str" or "inputs" in each):
                    found.append((key, each[key]))
            stack.extend(each.values())
        elif isinstance(each, list):
            stack.extend(each)
    return found
