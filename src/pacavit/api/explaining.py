"""Explain what a trained model predicts, and measure explanations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pacavit.api._console import print_line
from pacavit.api._images import find_images
from pacavit.data import check_split
from pacavit.engine import build
from pacavit.engine.run.environment import environment
from pacavit.engine.system import check_precision, configure, pick_device
from pacavit.engine.weights.load import load_model, weights_digest
from pacavit.errors import Interrupted
from pacavit.explain import explain_images, find_class
from pacavit.explain.evaluation.cache import FileCache
from pacavit.explain.evaluation.model import evaluate_explanations
from pacavit.report.explanation.evaluation import (
    UNFINISHED,
    ExplanationReport,
    check_report_folder,
    write_explanation_report,
)
from pacavit.report.explanation.page import (
    ExplainedImage,
    check_explanation_folder,
    write_explanations,
)
from pacavit.utils.command import pacavit_command
from pacavit.utils.deprecation import renamed
from pacavit.utils.text import shown

__all__ = ["explain", "explain_bench", "explain_evaluate"]


def explain(
    model: str | Path,
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    label: str | int | None = None,
    stage: int | None = None,
    method: str | None = None,
    measured: str | Path | None = None,
    region: tuple[int, int] | None = None,
    mask: str | Path | None = None,
    box: tuple[float, float, float, float] | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> list[ExplainedImage]:
    """Show which areas of images a prediction is based on, and the clusters of the model.

    Writes a folder of pictures per image (maps over the image, binary masks and the image with
    only or without the masked area, a gallery of clusters per stage), ``explanations.json``, and
    ``index.html``, in which a click on a patch shows the clusters it attends to.

    For a segmentation model, the pictures are the predicted classes, a map for each region that is
    explained, and the clusters of the head; a click on a pixel shows its class and clusters.

    Args:
        model: run folder, weights file or packaged name.
        images: image files of any size and mode, or folders of them; one, or several.
        out: folder to write; one that holds something is refused.
        label: name or index of the class to explain; None is each image's top-1 class. For
            segmentation, None explains each class with at least 1 % of the image, the six largest
            first, where it is predicted; with a region or a mask it is the class there. For
            detection, None explains the six objects with the highest scores, of at least 0.3.
        stage: index of the stage whose clusters make the map; None is the last with clusters.
        method: registered name, see ``list_names("methods")``; None takes the method that
            ``explain_evaluate`` found most faithful for these weights. If there is no such result,
            it depends on the model: contributions of clusters, relevance for other transformers,
            Grad-CAM for all others. For networks of other data than CIFAR-10, relevance then stands
            beside contributions, because neither was measured on such images.
        measured: a folder written by ``explain_evaluate`` for these weights; None looks for
            ``explain-evaluate`` in the run folder.
        region: (x, y) in pixels of the images: explain the region of one class that is connected
            with this pixel (segmentation), or the object there with the highest score (detection).
        mask: image file of the size of the images, for segmentation: explain the region where it
            is not 0.
        box: x1, y1, x2, y2 in pixels of the images, for detection: explain why there is an object,
            or why not; without ``label`` for the class that is most likely in it.
        overwrite: replace the explanations in ``out``.
        progress: show a progress bar; for a single image, a status line.

    Returns:
        One record per image, in order; an image that cannot be explained has its ``error`` set.

    Raises:
        PacavitError: any other error that a user can fix; the message says what and where.
    """
    check_explanation_folder(Path(out), overwrite=overwrite)
    paths = find_images(images, progress=progress)
    loaded = load_model(model)
    explanations = explain_images(
        loaded,
        paths,
        label=None if label is None else find_class(label, loaded.info),
        method=method,
        stage=stage,
        measured=None if measured is None else Path(measured),
        region=region,
        mask=None if mask is None else Path(mask),
        box=box,
        device=pick_device("auto"),
        progress=progress,
    )
    return write_explanations(
        explanations, Path(out), title=f"What {shown(model)} looks at", overwrite=overwrite
    )


def explain_evaluate(
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
) -> ExplanationReport:
    """Measure how faithful the maps of explanation methods are, on the same images for all.

    Writes ``faithfulness.html``, ``.md``, ``.json`` and ``.svg``, and in
    ``faithfulness.safetensors`` the values of every image. An interrupted call resumes when it is
    repeated: intermediate results stay in ``faithfulness.unfinished`` until all are complete.

    If ``out`` is the folder ``explain-evaluate`` of a run, the most faithful method becomes the
    default of ``explain``, reports and the demo for this run.

    Args:
        model: run folder, weights file or packaged name.
        out: folder, created if needed.
        data: folder with the data set, instead of the one the model was trained on.
        methods: registered names, the first of which the others are compared with; None takes all
            methods that can explain the model.
        split: "train", "val" or "test".
        limit: number of images, taken from the split in a fixed random order.
        skip: number of images of that order to leave out first, such as those used to choose a
            method.
        precision: "fp32", or "bf16" for predictions on altered images, which takes about half the
            time on CPUs with bf16 instructions.
        overwrite: replace the results in the folder, or unfinished ones with other settings.
        progress: show a progress bar.

    Raises:
        PacavitError: any error that a user can fix; the message says what and where.
    """
    out = Path(out)
    check_report_folder(out, overwrite=overwrite)
    loaded, device = load_model(model), pick_device("auto", float64=True)
    configure(device)
    cache = FileCache(out / UNFINISHED, overwrite=overwrite, log=print_line if progress else None)
    try:
        scores = evaluate_explanations(
            loaded,
            split=check_split(split),
            root=None if data is None else Path(data),
            methods=methods,
            limit=limit,
            skip=skip,
            precision=check_precision(precision),
            device=device,
            cache=cache,
            progress=progress,
        )
    except KeyboardInterrupt:
        raise Interrupted("repeat the same command to resume") from None
    command = pacavit_command(
        "explain-evaluate",
        model,
        out="DIR",
        limit=limit,
        skip=skip or None,
        data=None if data is None else "ROOT",
        methods=None if methods is None else ",".join(row.method for row in scores.rows),
        precision=None if precision == "fp32" else precision,
        split=None if split == "test" else split,
    ).with_plugins(plugin.path.name for plugin in build.plugins(loaded.task, loaded.recipe))
    version = f"{scores.data}, {split} split"
    report = ExplanationReport(
        shown(Path(model).name),
        version,
        command,
        scores,
        environment(device),
        weights_digest(loaded),
    )
    write_explanation_report(report, out)
    cache.remove()
    return report


explain_bench = renamed(explain_evaluate, "explain_bench")
