"""Bring weights in from elsewhere, and hand them on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from pacavit.engine.weights import hub
from pacavit.engine.weights.original import Conversion, convert_checkpoint
from pacavit.report.publishing.folder import publish_run

__all__ = ["convert", "from_pretrained", "save_pretrained"]


def convert(
    official: str | Path,
    out: str | Path,
    *,
    model: str | None = None,
    overwrite: bool = False,
) -> Conversion:
    """Turn a checkpoint of the authors of PaCa-ViT into a weights file that every verb takes.

    Args:
        official: their ``.pth`` file, bare or wrapped; nothing in it is executed.
        out: weights file to write, its name ends in ``.safetensors``.
        model: the authors' name of the model; None finds it out from the shapes of the weights.
        overwrite: replace the file ``out``.

    Returns:
        Which model it is, and which weights were loaded, re-initialised or unexpected.

    Raises:
        PacavitError: anything a user can mend; the message says what and where.
    """
    return convert_checkpoint(Path(official), Path(out), model=model, overwrite=overwrite)


def save_pretrained(
    run: str | Path,
    folder: str | Path,
    *,
    repository: str | None = None,
    license: str = "apache-2.0",  # noqa: A002 - the hub's own word
    data: str | Path | None = None,
    progress: bool = False,
) -> Path:
    """Write a finished run as a folder for the Hugging Face hub, with a model card filled from it.

    ``evaluate``, ``predict``, ``from_pretrained`` and ``timm.create_model("local-dir:FOLDER",
    pretrained=True)`` load the folder; ``hf upload USER/NAME FOLDER`` publishes it. For networks
    that no run of this package trained, there is ``pacavit.engine.weights.hub.save_pretrained``.

    Args:
        run: folder of the run.
        folder: to write: ``model.safetensors``, ``config.json`` and ``README.md``.
        repository: USER/NAME on the hub, for the card; None is USER and the folder's name.
        license: of the weights, as the hub abbreviates it.
        data: folder with the data set, instead of the run's; the card's scores are of its test
            split.
        progress: show a progress bar.

    Raises:
        PacavitError: anything a user can mend; the message says what and where.
    """
    return publish_run(
        Path(run),
        Path(folder),
        repository=repository,
        license_name=license,
        data=None if data is None else Path(data),
        progress=progress,
    )


def from_pretrained(source: str | Path, **settings: Any) -> nn.Module:
    """The network in a folder of ``save_pretrained``, or on the hub, in evaluation mode.

    Args:
        source: the folder, or ``hf-hub:USER/NAME`` with or without ``@REVISION``.
        **settings: arguments of the network instead of the stored ones, such as ``num_classes``.

    Raises:
        PacavitError: there is no such folder or repository, it is broken, or nothing fits.
    """
    return hub.from_pretrained(source, **settings)
