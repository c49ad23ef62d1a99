"""Export a trained network, and check the file that was written."""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.export import ExportedProgram

from pacavit.data import Sample, SampleRandom
from pacavit.engine import LoadedModel
from pacavit.engine.exported import ExportFacts, Quantization, exported_text
from pacavit.engine.exported.facts import Precision
from pacavit.engine.weights.format import Description
from pacavit.engine.weights.load import load_model, weights_digest
from pacavit.errors import PacavitError
from pacavit.export.check import Agreement, check_sizes, compare
from pacavit.export.int8 import load_splits, write_int8
from pacavit.export.pictures import real_pictures, spread
from pacavit.export.pixels import pixel_input
from pacavit.export.program import CastGraph, make_program
from pacavit.export.target import plan_target, publish, temporary_folder
from pacavit.export.writers import WRITERS, Job, Writer
from pacavit.layers import optimize
from pacavit.recipes.schema import MAX_IMAGE_SIZE
from pacavit.tasks.graph import Graph
from pacavit.utils.exporting import check_export
from pacavit.utils.progress import announce

__all__ = ["ExportOptions", "Exported", "export_model"]


@dataclass(frozen=True)
class ExportOptions:
    """What a user asks for.

    Attributes:
        to: name of the format; None is that of the suffix.
        input: "float" (normalized images of the network's size) or "uint8" (pixels of any image).
        precision: of the arithmetic.
        size: (height, width), the only size of the input; None is any, where the network allows.
        overwrite: replace what is there.
        data: folder with the data set for the check, instead of the recipe's.
        allow_drop: keep an int8 file whatever its score.
    """

    to: str | None = None
    input: Literal["float", "uint8"] = "float"
    precision: Precision = "fp32"
    size: tuple[int, int] | None = None
    overwrite: bool = False
    data: Path | None = None
    allow_drop: bool = False


@dataclass(frozen=True)
class Exported:
    """A file that was exported.

    Attributes:
        path: of the file or folder.
        format: its name.
        facts: how it was exported.
        agreement: with the network; of an int8 file, the scores of both.
        num_bytes: of all its files.
    """

    path: Path
    format: str
    facts: ExportFacts
    agreement: Agreement | Quantization
    num_bytes: int


def export_model(model: LoadedModel, out: Path, options: ExportOptions, version: str) -> Exported:
    """Write a trained network as a file for another engine; it is complete and checked, or absent.

    Args:
        model: as loaded by ``load_model``.
        out: file or folder to write.
        options: what is asked for.
        version: of this package.

    Raises:
        PacavitError: the network or the format does not allow it, a library is missing, or the
            file does not agree with the network.
    """
    target = plan_target(out, options.to, overwrite=options.overwrite)
    writer = WRITERS.create(target.format, options={})
    _check_options(writer, target.format, options)
    network = model.task.graph()
    check_export(network)
    preprocess = model.preprocess()
    if options.input == "uint8":
        pixel_input(network, preprocess, model.info, options.size)  # refuses before work begins
    splits = load_splits(model, options.data) if options.precision == "int8" else None
    if splits is not None:
        pictures, origin = spread(splits.val), ""
    else:
        pictures, origin = real_pictures(model, options.data)
    usual = _input_size(model, pictures[0])
    facts = ExportFacts(
        input=options.input,
        outputs=network.outputs,
        precision=options.precision,
        size=options.size,
        network_size=usual,
        channels=network.channels,
        strides=network.strides,
        weights_sha256=weights_digest(model),
        pacavit_version=version,
    )
    graph: Graph = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    optimize(graph, in_place=True)
    if options.precision in writer.casts:
        graph = CastGraph(graph, options.precision)
    if options.input == "uint8":
        graph = pixel_input(graph, preprocess, model.info, options.size).eval()
        usual = (pictures[0].shape[1], pictures[0].shape[2])
    announce(f"exporting {model.recipe.model.name} to {target.format}")
    example = _example(options.input, options.size or usual)
    program, any_size = _trace(graph, example, any_size=options.size is None)
    if options.size is None and not any_size:
        facts = replace(facts, size=usual)
    description = Description(model.recipe, model.info, model.metrics, model.calibration)
    job = Job(program, example, facts, exported_text(facts, description), model.info.class_names)
    with temporary_folder(target.path) as folder:
        made = folder / target.path.name
        agreement: Agreement | Quantization
        if splits is not None:
            agreement = write_int8(
                model, writer, job, description, made, splits, allow_drop=options.allow_drop
            )
            facts = replace(facts, quantization=agreement)
        else:
            writer.write(job, made)
            sizes = check_sizes(usual, facts.size)
            agreement = compare(model, load_model(made), pictures, sizes, origin)
        num_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        publish(folder, target)
    return Exported(target.path, target.format, facts, agreement, num_bytes)


def _trace(graph: Graph, example: Tensor, *, any_size: bool) -> tuple[ExportedProgram, bool]:
    """The program of a graph, and whether it takes images of any size.

    Args:
        graph: in evaluation mode.
        example: its input.
        any_size: is wanted, and given up where it cannot be traced.
    """
    try:
        return make_program(graph, example, any_size=any_size), any_size
    except PacavitError as error:
        if not any_size:
            raise
        height, width = example.shape[1:3] if example.dtype == torch.uint8 else example.shape[2:]
        announce(f"not for images of any size, only for {height} x {width}: {error}")
        return make_program(graph, example, any_size=False), False


def _check_options(writer: Writer, name: str, options: ExportOptions) -> None:
    """Raise PacavitError for a wrong option, or a library that is missing."""
    if options.input not in ("float", "uint8"):
        raise PacavitError(f"input must be float or uint8, not {options.input!r}")
    if options.precision not in writer.precisions:
        raise PacavitError(
            f"the format {name} has no precision {options.precision!r}; choose among: "
            f"{', '.join(writer.precisions)}"
        )
    if options.size is not None and not all(0 < side <= MAX_IMAGE_SIZE for side in options.size):
        height, width = options.size
        raise PacavitError(f"size {height} x {width} must be of 1 to {MAX_IMAGE_SIZE} pixels")
    needed = [*writer.libraries, *(["onnxruntime"] if options.precision == "int8" else [])]
    missing = [each for each in dict.fromkeys(needed) if importlib.util.find_spec(each) is None]
    if missing:
        raise PacavitError(
            f"the format {name} needs {', '.join(missing)}; install it with: "
            "pip install 'pacavit[export]'"
        )


def _input_size(model: LoadedModel, picture: Tensor) -> tuple[int, int]:
    """(height, width) of the network's input for an image (3, H, W)."""
    random = SampleRandom(seed=0, epoch=0, indices=torch.zeros(1, dtype=torch.int64))
    preprocess = model.preprocess()
    batch = preprocess.collate([preprocess.sample(Sample(picture, None, 0), random)])
    images = preprocess.batch(batch, random).images
    return images.shape[2], images.shape[3]


def _example(kind: str, size: tuple[int, int]) -> Tensor:
    """An input of two images."""
    if kind == "uint8":
        return torch.zeros(2, *size, 3, dtype=torch.uint8)
    return torch.zeros(2, 3, *size)
