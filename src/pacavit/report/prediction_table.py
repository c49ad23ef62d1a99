"""Predictions of any number of images in one file, written while they are made.

Rows go to ``FILE.partial``, one JSON object a line, below a line that describes the job. A job that
was killed continues behind its last complete row. ``FILE`` is made from these lines at the end, so
it is complete or absent, and the columns of a table are those of all its rows.
"""

from __future__ import annotations

import csv
import json
import os
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from filelock import FileLock, Timeout
from torch import Tensor

from pacavit.errors import PacavitError
from pacavit.tasks import TaskPrediction
from pacavit.utils import files
from pacavit.utils.text import shown

if TYPE_CHECKING:
    from pyarrow import Schema, Table

__all__ = ["JSON_LINES", "TableWriter"]

JSON_LINES = ".jsonl"
_SUFFIXES = (".csv", ".json", JSON_LINES, ".parquet")
_SYNC_SECONDS = 2.0  # between writes to the disk
_GROUP_ROWS = 10_000  # of a row group


class TableWriter:
    """Writes the predictions of any task to a file in the format of its suffix.

    A table has one row per image; an image without a value has an empty cell. Items of a list have
    columns with their number (``class_1``, ``probability_1``, ``class_2``); lists of texts are
    joined by ``;``. The last column is ``error``.

    Args:
        out: file in ``.csv``, ``.json``, ``.jsonl`` or ``.parquet``.
        overwrite: replace it.

    Attributes:
        num_images: rows that are written, those of an earlier session as well.
        num_errors: those of them that have an error.

    Raises:
        PacavitError: the suffix is unknown, or something is in the way.
    """

    def __init__(self, out: Path, *, overwrite: bool) -> None:
        if out.suffix.lower() not in _SUFFIXES:
            raise PacavitError(
                f"cannot write predictions to {shown(out)}; its name must end in "
                f"{', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]}"
            )
        if out.is_dir():
            raise PacavitError(f"{shown(out)} is a folder; choose another file")
        if out.exists() and not overwrite:
            raise PacavitError(f"{shown(out)} exists; give --overwrite or another file")
        if out.parent.exists() and not out.parent.is_dir():
            raise PacavitError(f"{shown(out.parent)} is a file; choose another folder")
        self.out, self.partial = out, out.with_name(f"{out.name}.partial")
        self.num_images = self.num_errors = 0
        self._overwrite, self._synced = overwrite, 0.0
        self._lock = FileLock(out.with_name(f".{out.name}.lock"), timeout=0)
        self._file: IO[bytes] | None = None

    def resume(self, job: Mapping[str, Any], unit: int) -> int:
        """Continue an earlier session of the same job, if there is one.

        Args:
            job: what the rows depend on, by name, as plain data.
            unit: rows are kept in multiples of it.

        Returns:
            The number of rows that are written already.

        Raises:
            PacavitError: the rows belong to another job, or another process is writing them.
        """
        # As it will be read again: lists for tuples, texts for keys.
        own = json.loads(json.dumps(dict(job)))
        with files.writing(self.partial):
            self._acquire()
            end = self._find_rows(own, unit) if self.partial.exists() else None
            if end is None:
                self._begin(own)
            else:
                self._file = self.partial.open("r+b")
                self._file.truncate(end)
                self._file.seek(end)
        return self.num_images

    def add(self, prediction: TaskPrediction, image: Callable[[], Tensor]) -> None:
        """Write a row.

        Raises:
            CheckpointError: the disk is full, or the folder cannot be written.
        """
        record = prediction.to_dict()
        with files.writing(self.partial):
            if self._file is None:
                self._acquire()
                self._begin(None)
            assert self._file is not None
            self._file.write(json.dumps(record).encode() + b"\n")
            if time.monotonic() > self._synced + _SYNC_SECONDS:
                self._sync()
        self.num_images += 1
        self.num_errors += record["error"] is not None

    def finish(self) -> None:
        """Make the file from all rows; an older one is replaced."""
        kind = self.out.suffix.lower()
        write = {
            ".csv": _write_csv,
            ".json": _write_json,
            JSON_LINES: _write_lines,
            ".parquet": _write_parquet,
        }[kind]
        with files.writing(self.out):
            if self._file is None:
                self._acquire()
                self._begin(None)
            self._sync()
            with files.replacing(self.out) as temporary:
                write(lambda: _records(self.partial), temporary)
            self.close()
            self.partial.unlink()

    def close(self) -> None:
        """Let other processes write the file; the rows stay."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._lock.is_locked:
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()

    def _acquire(self) -> None:
        self.out.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise PacavitError(
                f"another process is writing {shown(self.out)}; wait for it, or choose another file"
            ) from None

    def _begin(self, job: Mapping[str, Any] | None) -> None:
        self._file = self.partial.open("wb")
        self._file.write(json.dumps({"job": job}).encode() + b"\n")

    def _sync(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _find_rows(self, job: Mapping[str, Any], unit: int) -> int | None:
        """Count the rows of an earlier session; the end of those to keep, None for none."""
        with self.partial.open("rb") as file:
            header = _parsed(file.readline())
            stored = None if header is None else header.get("job")
            if stored != job:
                if self._overwrite or not isinstance(stored, dict):
                    return None
                differing = [name for name in job if stored.get(name) != job[name]]
                raise PacavitError(
                    f"{shown(self.partial)} holds the rows of a job with other "
                    f"{', '.join(differing) or 'settings'}; repeat that job to continue it, or "
                    "give --overwrite to begin anew"
                )
            rows = errors = 0
            position = end = file.tell()
            for line in file:
                record = _parsed(line)
                if record is None:  # the end of a session that was killed while writing
                    break
                rows, errors = rows + 1, errors + (record.get("error") is not None)
                position += len(line)
                if rows % unit == 0:
                    self.num_images, self.num_errors, end = rows, errors, position
            return end


_Records: TypeAlias = Callable[[], Iterator[dict[str, Any]]]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """The object of a complete line; None if it is none."""
    if not line.endswith(b"\n"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _records(partial: Path) -> Iterator[dict[str, Any]]:
    """The rows below the first line, which describes the job."""
    with partial.open("rb") as file:
        for line in islice(file, 1, None):
            yield json.loads(line)


def _write_lines(records: _Records, out: Path) -> None:
    with out.open("wb") as file:
        file.writelines(json.dumps(record).encode() + b"\n" for record in records())


def _write_json(records: _Records, out: Path) -> None:
    """A list with one object per image, as ``json.dumps`` writes it with an indent of 2."""
    with out.open("w", encoding="utf-8", newline="\n") as file:
        between = "[\n"
        for record in records():
            file.write(between + textwrap.indent(json.dumps(record, indent=2), "  "))
            between = ",\n"
        file.write("[]\n" if between == "[\n" else "\n]\n")


def _write_csv(records: _Records, out: Path) -> None:
    header = _header(records())
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for record in records():
            row = dict(_columns(record))
            writer.writerow([row.get(name) for name in header])


def _write_parquet(records: _Records, out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    header = _header(records())
    # Without errors that column would have no type, and tables of several shards not the same.
    fixed = pa.schema([(name, pa.string()) for name in ("path", "error") if name in header])
    schemas = [table.schema for table in _tables(records(), header, fixed)]
    schema = pa.unify_schemas(schemas or [fixed], promote_options="permissive")
    with pq.ParquetWriter(out, schema) as writer:
        for table in _tables(records(), header, schema):
            writer.write_table(table)


def _tables(
    records: Iterator[dict[str, Any]], header: Sequence[str], types: Schema
) -> Iterator[Table]:
    """Row groups, with the types of a schema for its columns and those of their values else."""
    import pyarrow as pa

    while group := [dict(_columns(record)) for record in islice(records, _GROUP_ROWS)]:
        yield pa.table(
            {
                name: pa.array(
                    [row.get(name) for row in group],
                    types.field(name).type if name in types.names else None,
                )
                for name in header
            }
        )


def _header(records: Iterator[dict[str, Any]]) -> list[str]:
    """The columns of all rows, in the order in which they come; ``error`` last."""
    names = {"path": None}
    for record in records:
        names.update((name, None) for name, _ in _columns(record))
    return [*(name for name in names if name != "error"), "error"]


def _columns(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            for number, item in enumerate(value, 1):
                yield from ((f"{key}_{number}", each) for key, each in item.items())
        elif isinstance(value, list):
            if all(isinstance(each, str) for each in value) and value:
                yield name, ";".join(value)
        else:
            yield name, value
