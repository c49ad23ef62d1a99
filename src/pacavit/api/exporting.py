"""Export a trained model for other engines."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.console import Console

from pacavit import __version__
from pacavit.engine.exported.facts import Precision
from pacavit.engine.weights.load import load_network
from pacavit.export import Exported, ExportOptions, export_model
from pacavit.utils.progress import show_progress

__all__ = ["export"]


def export(
    model: str | Path,
    out: str | Path,
    *,
    to: str | None = None,
    input: Literal["float", "uint8"] = "float",  # noqa: A002 - the word of the option
    precision: Precision = "fp32",
    size: tuple[int, int] | None = None,
    data: str | Path | None = None,
    allow_drop: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> Exported:
    """Write a trained model as a file for ONNX Runtime, OpenVINO, torch.export or Triton.

    The file takes any number of images, of any size where the network allows. It is loaded again
    and compared with the network, on real images of three sizes in batches of 1 and 3; if they
    differ, it is removed. ``predict``, ``evaluate``, ``explain`` and ``demo`` take it like a run
    folder.

    An int8 file is calibrated on 256 training images and checked by its validation score instead:
    it is removed if it loses more than 0.3 points of the task's main score.

    Args:
        model: run folder, weights file or packaged name.
        out: file to write: ``.onnx``, ``.xml`` (OpenVINO, with a ``.bin`` beside it) or ``.pt2``;
            or with ``to`` a folder for "openvino" or "triton".
        to: name of the format, see ``list_names("formats")``; None is that of the suffix.
        input: "float": normalized images (B, 3, height, width), fp32. "uint8": pixels
            (B, height, width, 3) of images of any size; cropping, resizing and normalization are
            part of the file.
        precision: of the arithmetic: "fp32", "fp16", "bf16" or "int8", where the engine has it.
        size: (height, width), the only size that the file takes; some engines are faster then.
        data: folder with the data set for the comparison, and for int8, instead of the run's.
        allow_drop: keep an int8 file that loses more than 0.3 points.
        overwrite: replace the file.
        progress: show what is done.

    Returns:
        Path, format and size of the file, and how well it agrees: for int8 the scores of both.

    Raises:
        PacavitError: any error that a user can fix; the message says what and where.
    """
    options = ExportOptions(
        to, input, precision, size, overwrite, None if data is None else Path(data), allow_drop
    )
    with show_progress(Console(stderr=True) if progress else None):
        return export_model(load_network(model), Path(out), options, __version__)
