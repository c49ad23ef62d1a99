"""Where a run keeps its evaluations: those of its own splits, and those of other data."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from pacavit.data import Split
from pacavit.engine.weights.load import LoadedModel, weights_digest
from pacavit.report.evaluation import RECORD, read_evaluation
from pacavit.report.tasks import StoredEvaluation
from pacavit.utils.text import shown

__all__ = [
    "ALL",
    "OTHER_DATA",
    "SPLIT_TITLES",
    "OtherEvaluation",
    "evaluation_folder",
    "evaluations",
    "other_evaluations",
    "other_folder",
    "split_title",
]

ALL = "all"
"""Recorded as the split of an evaluation on the images of all splits."""
OTHER_DATA = "other-data"
SPLIT_TITLES: Mapping[Split, str] = {"test": "test", "val": "validation", "train": "training"}
"""Splits by importance: classes and examples of the first one are shown."""


class OtherEvaluation(NamedTuple):
    """An evaluation of a run on data other than a split of its own.

    Attributes:
        folder: with its files.
        stored: the evaluation.
    """

    folder: Path
    stored: StoredEvaluation


def evaluation_folder(run: Path, split: str) -> Path:
    """Where a run keeps its evaluation on a split of its own data, with the name of the split."""
    return run / f"evaluation-{split}"


def evaluations(run: Path, model: LoadedModel) -> dict[Split, StoredEvaluation]:
    """Evaluations, on the run's own data, of the weights that it has now; test comes first.

    Raises:
        CheckpointError: a file of them is broken.
    """
    digest = weights_digest(model)
    found = {}
    for split in SPLIT_TITLES:
        folder = evaluation_folder(run, split)
        stored = read_evaluation(folder, digest)
        if stored is not None:
            found[split] = replace(stored, base=f"{folder.name}/")
    return found


def other_folder(run: Path, data: Path, split: str, version: str) -> Path:
    """Where a run keeps its evaluation on other data: a folder named after them.

    Args:
        run: the run's folder.
        data: folder or file of the data; only its name is used.
        split: name of the split, or ``ALL``.
        version: of the data; results of another version are not replaced.
    """
    stem = re.sub(r"[^\w.-]+", "_", shown(data.stem if data.suffix == ".csv" else data.name))
    name = f"{stem or 'data'}-{split}"
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    folders = (run / OTHER_DATA / each for each in itertools.chain([name], numbered))
    return next(each for each in folders if not each.exists() or _version(each) == version)


def other_evaluations(run: Path, model: LoadedModel) -> list[OtherEvaluation]:
    """Evaluations, on other data, of the weights that a run has now, by folder name.

    Raises:
        CheckpointError: a file of them is broken.
    """
    if not (run / OTHER_DATA).is_dir():
        return []
    digest = weights_digest(model)
    found = []
    for folder in sorted((run / OTHER_DATA).iterdir()):
        stored = read_evaluation(folder, digest)
        if stored is not None:
            found.append(OtherEvaluation(folder, stored))
    return found


def split_title(stored: StoredEvaluation) -> str:
    """The name of the images of an evaluation, such as "validation" or "all"."""
    return {str(split): title for split, title in SPLIT_TITLES.items()}.get(
        stored.split, stored.split
    )


def _version(folder: Path) -> str | None:
    """Version of the data of an evaluation; None if the folder holds none that can be read."""
    try:
        return str(json.loads((folder / RECORD).read_text(encoding="utf-8"))["data"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
