"""Use a trained model on images, and see inside it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from pacavit.api._console import print_line
from pacavit.data import check_split
from pacavit.data.formats.walk import expand_folders
from pacavit.demo import HOST, PORT, serve
from pacavit.engine.predictor import ImagePrediction, predict_images
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
from pacavit.utils.text import shown

__all__ = ["demo", "explain", "explain_bench", "predict"]


def predict(
    model: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    top_k: int = 5,
    progress: bool = False,
) -> list[ImagePrediction]:
    """Name what images show: the ``top_k`` likeliest classes of each, with probabilities.

    Args:
        model: run folder, weights file or packaged name.
        images: image files of any size and mode, or folders of them; one, or several.
        top_k: classes to name; all of them when there are fewer.
        progress: show a progress bar when there are many images.

    Returns:
        One prediction an image, in order; an image that cannot be read has its ``error`` set.

    Raises:
        PacavitError: the model cannot be loaded, or a folder has no images.
    """
    paths = _find_images(images, progress=progress)
    loaded = load_model(model)
    return predict_images(loaded, paths, top_k=top_k, device=pick_device("auto"), progress=progress)


def _find_images(images: str | Path | Sequence[str | Path], *, progress: bool) -> list[Path]:
    """The image files among files and folders; with ``progress``, logs what is skipped."""
    paths, skipped = expand_folders([images] if isinstance(images, str | Path) else images)
    note = skipped.describe()
    if progress and note is not None:
        print_line(note, stderr=True)
    return paths


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
    """Show which parts of images decide, and what the clusters of the model hold.

    Writes a folder of pictures an image (maps over the image, binary masks with what they keep and
    remove, a gallery of clusters a stage), ``explanations.json``, and ``index.html``, where a
    reader clicks a patch and sees the clusters it attends to.

    Args:
        model: run folder, weights file or packaged name.
        images: image files of any size and mode, or folders of them; one, or several.
        out: folder to write; one that holds something is refused.
        label: name or index of the class to explain; None is each image's likeliest.
        stage: whose clusters make the map; None is the last that has some.
        method: registered name, as ``list_names("methods")`` has them; None is contributions of
            clusters where there are some.
        overwrite: replace the explanations in ``out``.
        progress: show a progress bar; of a single image, that it is under way.

    Returns:
        One record an image, in order; an image that cannot be explained has its ``error`` set.

    Raises:
        PacavitError: anything else that a user can mend; the message says what and where.
    """
    check_explanation_folder(Path(out), overwrite=overwrite)
    paths = _find_images(images, progress=progress)
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
        explanations, Path(out), title=f"What {shown(model)} looks at", overwrite=overwrite
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
    words = ["pacavit", "explain-bench", shown(model), "--out", "DIR", "--limit", str(limit)]
    words += ["--skip", str(skip)] if skip else []
    words += [] if data is None else ["--data", "ROOT"]
    words += [] if methods is None else ["--methods", ",".join(methods)]
    words += [] if precision == "fp32" else ["--precision", precision]
    words += [] if split == "test" else ["--split", split]
    copy = f"{found.data}, {split} split"
    report = BenchReport(
        shown(Path(model).name), copy, shlex.join(words), found, environment(device)
    )
    write_bench(report, out)
    parts.remove()
    return report


def demo(
    models: Sequence[str] = (), *, host: str = HOST, port: int = PORT, browser: bool = False
) -> None:
    """Serve a page to see inside models, with images of one's own, until Ctrl-C.

    Args:
        models: run folders, weights files or packaged names to choose from, before the packaged
            weights.
        host: address to listen at; only by default nobody else can reach it.
        port: to listen at; 0 is any that is free.
        browser: open the page in a browser.

    Raises:
        PacavitError: the extra ``demo`` is missing, a model cannot be loaded, or the port is in
            use.
    """
    serve(models, host=host, port=port, browser=browser, write=write_explanations, tell=print_line)
