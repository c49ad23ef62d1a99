"""Evaluate predictions that are in a file, without a model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from math import nan
from pathlib import Path

import torch
from rich.console import Console

from pacavit import recipes
from pacavit.api._console import print_line
from pacavit.data import DATASETS, DataSource, ObjectImages, check_split
from pacavit.engine import build
from pacavit.engine.evaluate import Evaluation, Measurement, as_evaluation
from pacavit.engine.scoring import SplitScore
from pacavit.errors import UnknownNameError
from pacavit.report.evaluation import evaluation_facts, read_evaluation, write_evaluation
from pacavit.report.folders import check_no_file
from pacavit.report.results_page import write_predictions_page
from pacavit.report.tasks.detection.observe import DetectionObserver
from pacavit.tasks.detection import DetectionMetrics, Detections
from pacavit.tasks.detection.results import ResultFile
from pacavit.utils.command import Command, pacavit_command
from pacavit.utils.progress import show_progress
from pacavit.utils.registry import plugins_of
from pacavit.utils.text import shown

__all__ = ["evaluate_predictions"]

_RECIPE = "objects_nano"  # only its section of the data is used
_TASKS = ("detection", "instance_segmentation")


def evaluate_predictions(
    file: str | Path,
    *,
    data: str | Path | None = None,
    dataset: str = "coco",
    split: str = "test",
    task: str | None = None,
    set: Sequence[str] = (),  # noqa: A002 - the same name as on the command line
    out: str | Path | None = None,
    progress: bool = False,
) -> Evaluation:
    """Evaluate detections in a file, of any tool, on a split; images are only read for a report.

    The file has COCO's result format: a JSON list of records with ``category_id`` (the data set's
    own), ``bbox`` (x, y, width, height in pixels of the image), ``score`` and, for masks,
    ``segmentation`` (run lengths). They belong to the image with their ``file_name`` if all records
    have one, else to that with their ``image_id``. ``pacavit predict --out`` and ``pacavit
    evaluate`` write such files.

    Args:
        file: with the predictions.
        data: folder with the data set; data sets that come with the package need none.
        dataset: name of the data set, which reads the folder.
        split: "train", "val" or "test".
        task: "detection" or "instance_segmentation"; by default the latter if all records and the
            data have masks.
        set: ``"data.options.NAME=value"`` options of the data set, as in a recipe.
        out: folder for the results; without it, nothing is saved.
        progress: show progress, and notes on the data.

    Returns:
        The scores; ``folder`` says where they are saved.

    Raises:
        PacavitError: any error that a user can fix; the message says what and where.
    """
    chosen, path = check_split(split), Path(file)
    if task is not None and task not in _TASKS:
        raise UnknownNameError("task of predictions in a file", task, _TASKS)
    folder = None if out is None else Path(out)
    if folder is not None:
        check_no_file(folder)
    with show_progress(Console(stderr=True) if progress else None):
        results = ResultFile.read(path)
        if task is None:
            able = results.has_masks and "instances" in DATASETS.get(dataset).targets
            task = _TASKS[able]
        fields = (f"task.name={task}", "task.image_size=null", f"data.name={dataset}")
        recipe = recipes.load(_RECIPE, [*fields, *set])
        source = build.data_source(recipe, None if data is None else Path(data), None, chosen)
        images = source.load(chosen)
        assert isinstance(images, ObjectImages)
        masks = task == "instance_segmentation"
        found = results.detections(images, source.info, masks=masks)
    score, observed = _score(found, images, source, task)
    if progress:
        number = sum(len(each) > 0 for each in found)
        counts = f"{len(results.records):,} objects in {number:,} of {len(images):,} images"
        for text in (*score.notes(), f"{shown(path)}: {counts}"):
            print_line(text, stderr=True)
    if folder is not None:
        command = pacavit_command(
            "evaluate",
            predictions=path,
            data=data,
            dataset=dataset,
            split=split,
            task=task,
            set=list(set),
            out=folder,
        )
        _save(score, observed, folder, path, command, split)
    return replace(score.evaluation, folder=folder)


def _score(
    found: Sequence[Detections], images: ObjectImages, source: DataSource, task: str
) -> tuple[SplitScore, DetectionObserver]:
    """Compare detections with the objects of a split."""
    names, masks = source.info.class_names, task == "instance_segmentation"
    metrics, observed = DetectionMetrics(len(names), masks=masks), DetectionObserver(masks=masks)
    truth = [images.target(position) for position in range(len(images))]
    metrics.update(found, truth)
    for position, (own, objects) in enumerate(zip(found, truth, strict=True)):
        observed.add(position, own, objects)
    measured = Measurement(metrics.compute(), len(images), nan)
    evaluation = as_evaluation(task, measured, measured.metrics, names)
    return SplitScore(evaluation, images, source.info, source.note), observed


def _save(
    score: SplitScore,
    observed: DetectionObserver,
    folder: Path,
    path: Path,
    command: Command,
    split: str,
) -> None:
    """Write an evaluation with the facts needed to repeat it, and its page."""
    plugins = plugins_of([DATASETS.get(score.info.name)])
    command = command.with_plugins(plugin.path for plugin in plugins)
    facts = {
        **evaluation_facts(score, split, command, torch.device("cpu"), plugins),
        "predictions": shown(path.name),
        "predictions_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    title = f"{shown(path.name)} on {score.info.version}, {split}"
    write_evaluation(score, folder, title=title, facts=facts, observed=observed)
    stored = read_evaluation(folder, None)
    assert stored is not None
    write_predictions_page(folder, path, stored, command)
