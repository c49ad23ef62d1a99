"""Explain what a trained model predicts, and measure explanations."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from pacavit.api._console import print_line
from pacavit.data import check_split
from pacavit.engine.predictor import find_images
from pacavit.engine.system import check_precision, configure, environment, pick_device
from pacavit.engine.weights.load import load_model
from pacavit.errors import Interrupted
from pacavit.explain import explain_images, find_class
from pacavit.explain.evaluation.model import bench_model
from pacavit.explain.evaluation.parts import BenchParts
from pacavit.report.explanation.evaluation import (
    UNFINISHED,
    BenchReport,
    check_bench_folder,
    write_bench,
)
from pacavit.report.explanation.page import (
    ExplainedImage,
    check_explanation_folder,
    write_explanations,
)

__all__ = ["explain", "explain_bench"]


def explain(
    model: str | Path,
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    label: str | int | None = None,
    stage: int | None = None,
    method: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> list[ExplainedImage]:
    """Show which areas of images decide, and the clusters of the model.

    Writes a folder of pictures per image (maps over the image, binary masks and the image with
    only or without the masked area, a gallery of clusters per stage), ``explanations.json``, and
    ``index.html``, in which a click on a patch shows the clusters it attends to.

    Args:
        model: run folder, weights file or packaged name.
        images: image files of any size and mode, or folders of them; one, or several.
        out: folder to write; one that holds something is refused.
        label: name or index of the class to explain; None is each image's top-1 class.
        stage: whose clusters make the map; None is the last stage with clusters.
        method: registered name, see ``list_names("methods")``; None is what fits the model:
            contributions of clusters, relevance for other transformers, Grad-CAM for the rest.
        overwrite: replace the explanations in ``out``.
        progress: show a progress bar; for a single image, a status line.

    Returns:
        One record per image, in order; an image that cannot be explained has its ``error`` set.

    Raises:
        PacavitError: anything else that a user can mend; the message says what and where.
    """
    check_explanation_folder(Path(out), overwrite=overwrite)
    paths = find_images([images] if isinstance(images, str | Path) else images)
    loaded = load_model(model)
    explanations = explain_images(
        loaded,
        paths,
        label=None if label is None else find_class(label, loaded.info),
        method=method,
        stage=stage,
        device=pick_device("auto"),
        progress=progress,
    )
    return write_explanations(
        explanations, Path(out), title=f"What {model} looks at", overwrite=overwrite
    )


def explain_bench(
    model: str | Path,
    out: str | Path,
    *,
    data: str | Path | None = None,
    methods: Sequence[str] | None = None,
    split: str = "test",
    limit: int = 1000,
    skip: int = 0,
    precision: str = "fp32",
    overwrite: bool = False,
    progress: bool = False,
) -> BenchReport:
    """Measure how true the maps of explanation methods are, on the same images for all.

    Writes ``bench.html``, ``bench.md``, ``bench.json``, ``bench.svg``, and in ``bench.safetensors``
    the numbers of every image. Repeating the call goes on where it was stopped: what is measured
    stays in ``bench.unfinished`` until all is.

    Args:
        model: run folder, weights file or packaged name.
        out: folder, made if it is not there.
        data: folder with the data set, instead of the one the model was trained on.
        methods: registered names, the first of which the others are compared with; None is all
            that can explain the model.
        split: "train", "val" or "test".
        limit: images, drawn from the split once and for all.
        skip: images that come before those, for example because something was chosen with them.
        precision: "fp32", or "bf16" for what the network answers to altered images: on CPUs that
            know it, about half of the time.
        overwrite: replace the bench in the folder, or an unfinished one of other settings.
        progress: show a progress bar.

    Raises:
        PacavitError: anything a user can mend; the message says what and where.
    """
    out = Path(out)
    check_bench_folder(out, overwrite=overwrite)
    loaded, device = load_model(model), pick_device("auto")
    configure(device)
    parts = BenchParts(out / UNFINISHED, overwrite=overwrite, tell=print_line if progress else None)
    try:
        found = bench_model(
            loaded,
            split=check_split(split),
            root=None if data is None else Path(data),
            methods=methods,
            limit=limit,
            skip=skip,
            precision=check_precision(precision),
            device=device,
            parts=parts,
            progress=progress,
        )
    except KeyboardInterrupt:
        raise Interrupted("repeat the same command to go on") from None
    words = ["pacavit", "explain-bench", str(model), "--out", "DIR", "--limit", str(limit)]
    words += ["--skip", str(skip)] if skip else []
    words += [] if data is None else ["--data", "ROOT"]
    words += [] if methods is None else ["--methods", ",".join(methods)]
    words += [] if precision == "fp32" else ["--precision", precision]
    words += [] if split == "test" else ["--split", split]
    copy = f"{found.data}, {split} split"
    report = BenchReport(Path(model).name, copy, shlex.join(words), found, environment(device))
    write_bench(report, out)
    parts.remove()
    return report
