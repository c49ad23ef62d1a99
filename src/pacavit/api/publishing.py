"""Convert original checkpoints, and load and save networks in the Hugging Face format."""

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
    """Convert weights of the authors of PaCa-ViT, timm or torchvision to a file of this package.

    Args:
        official: a ``.pth`` file (a state dict or a dict that holds one; nothing in it is executed)
            or safetensors; ``timm:NAME`` or ``hf-hub:USER/NAME``.
        out: weights file to write; its name must end in ``.safetensors``.
        model: original name of a PaCa-ViT, or timm's name of any other model; None infers a
            PaCa-ViT from the shapes of the weights.
        overwrite: replace the file ``out``.

    Returns:
        The model, and the names of weights that were loaded, re-initialized or unexpected.

    Raises:
        PacavitError: any error that a user can fix; the message says what and where.
    """
    return convert_checkpoint(official, Path(out), model=model, overwrite=overwrite)


def save_pretrained(
    run: str | Path,
    folder: str | Path,
    *,
    repository: str | None = None,
    license: str = "apache-2.0",  # noqa: A002 - the hub's own word
    data: str | Path | None = None,
    progress: bool = False,
) -> Path:
    """Write a finished run as a folder for the Hugging Face hub, with a model card.

    ``evaluate``, ``predict``, ``from_pretrained`` and ``timm.create_model("local-dir:FOLDER",
    pretrained=True)`` load the folder; ``hf upload USER/NAME FOLDER`` publishes it. For networks
    that were not trained by this package, use ``pacavit.engine.weights.hub.save_pretrained``.

    Args:
        run: run folder.
        folder: to write: ``model.safetensors``, ``config.json`` and ``README.md``.
        repository: USER/NAME on the hub, for the card; by default USER and the name of the folder.
        license: of the weights, as a license identifier of the hub.
        data: folder with the data set, instead of the run's; the scores in the card are measured on
            its test split.
        progress: show a progress bar.

    Raises:
        PacavitError: any error that a user can fix; the message says what and where.
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
    """Load a network from a folder of ``save_pretrained`` or from the hub, in evaluation mode.

    Args:
        source: the folder, or ``hf-hub:USER/NAME`` with or without ``@REVISION``.
        **settings: arguments of the network that replace the stored ones, such as ``num_classes``.

    Raises:
        PacavitError: there is no such folder or repository, or it is broken or does not fit.
    """
    return hub.from_pretrained(source, **settings)
