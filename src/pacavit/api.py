"""The verbs of the command line as Python functions, with the same names and arguments."""

from __future__ import annotations

import inspect
import shlex
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, cast

import timm
import torch
from rich.console import Console
from torch import nn

from pacavit import engine, recipes
from pacavit._registry import Registry
from pacavit.attention import ATTENTIONS
from pacavit.clustering import CLUSTERINGS
from pacavit.compare import (
    Comparison,
    PlannedRun,
    RunResult,
    compare_runs,
    make_plan,
    read_run,
    write_comparison,
)
from pacavit.data import DATASETS, SPLITS, Split, describe_broken
from pacavit.demo import HOST, PORT, serve
from pacavit.engine import hub
from pacavit.engine.distributed import is_main_process
from pacavit.engine.evaluate import Evaluation
from pacavit.engine.folder import recipe_to_resume
from pacavit.engine.official import Conversion, convert_checkpoint
from pacavit.engine.predict import ImagePrediction, find_images, predict_images
from pacavit.engine.scoring import SplitScore, score_model
from pacavit.engine.system import environment, pick_device
from pacavit.engine.weights import WEIGHTS, LoadedModel, load_model, packaged_names
from pacavit.errors import (
    CheckpointError,
    Interrupted,
    PacavitError,
    RecipeError,
    UnknownNameError,
)
from pacavit.explain import DEFAULT_METHOD, METHODS, explain_images, find_class
from pacavit.explain.bench import bench_model
from pacavit.recipes.io import RECIPE_FILE
from pacavit.recipes.schema import Recipe
from pacavit.report.card import card_summary
from pacavit.report.curves import plot_curves
from pacavit.report.evaluation import weights_digest, write_evaluation
from pacavit.report.explanation import ExplainedImage, check_folder, write_explanations
from pacavit.report.explanation_bench import BenchReport, write_bench
from pacavit.report.published import Published, find_published, published
from pacavit.report.publishing import publish_run
from pacavit.report.run_page import REPORT, evaluation_folder, evaluations, write_run_page
from pacavit.tasks import ClassificationTask

__all__ = [
    "Entry",
    "Published",
    "compare",
    "convert",
    "demo",
    "evaluate",
    "explain",
    "explain_bench",
    "from_pretrained",
    "list_names",
    "predict",
    "published",
    "report_file",
    "reproduce",
    "results_folder",
    "save_pretrained",
    "train",
]


class Entry(NamedTuple):
    """Something with a name that commands take, and what it is in a line; maybe empty."""

    name: str
    summary: str


def train(
    recipe: str | Path | Recipe,
    out: str | Path,
    *,
    data: str | Path | None = None,
    set: Sequence[str] = (),  # noqa: A002 - the same name as on the command line
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Train a model and return the folder of the run, which ``evaluate`` and ``predict`` take.

    At the end the validation images are measured, and ``report.html`` in the folder shows the run.

    Args:
        recipe: name of a packaged recipe, a recipe file, or a recipe. A relative ``data.root``
            is relative to the current folder, wherever the recipe lies.
        out: the run's folder; one that exists is refused.
        data: folder with the data set, instead of the recipe's; relative to the current folder.
        set: ``"field.path=value"`` changes of the recipe, applied in order.
        resume: continue the interrupted run in ``out``; nothing else may differ. Without
            ``data``, on the data folder of that run. A finished run trains no more; only its
            curves and its report are made anew.
        overwrite: replace the run in ``out``.
        progress: show live progress on the console.

    Raises:
        PacavitError: anything a user can mend; the message says what and where.
    """
    if isinstance(recipe, Recipe):
        if set:
            raise RecipeError("set= changes recipes that are given by name or file")
        resolved = recipe
    else:
        resolved = recipes.load(recipe, set)
    root = resolved.data.root if data is None else Path(data)
    if root is not None:
        # Absolute, so that the run can be evaluated from anywhere.
        config = resolved.data.model_copy(update={"root": root.absolute()})
        resolved = resolved.model_copy(update={"data": config})
    run = engine.train(resolved, out, resume=resume, overwrite=overwrite, progress=progress)
    if is_main_process():
        _report_training(run, progress=progress)
    return run


def evaluate(
    model: str | Path,
    *,
    data: str | Path | None = None,
    split: str = "test",
    out: str | Path | None = None,
    progress: bool = False,
) -> Evaluation:
    """Measure a model on a split, and save the results where ``results_folder`` says.

    Results inside a run also go into the run's ``report.html``; if that cannot be made, a warning
    says why.

    Args:
        model: run folder, weights file or packaged name.
        data: folder with the data set, instead of the one the model was trained on. Of bare class
            folders only the held-out part is measured; put them into ``test`` for all.
        split: "train", "val" or "test".
        out: folder for the results; None is ``evaluation-SPLIT`` in a run folder, and saves
            nothing for weights outside of one.
        progress: show a progress bar.

    Raises:
        PacavitError: anything a user can mend; the message says what and where.
    """
    folder = results_folder(model, split=split, out=out)
    loaded = load_model(model)
    device = pick_device("auto")
    score = score_model(
        loaded,
        cast(Split, split),  # results_folder has checked it
        root=None if data is None else Path(data),
        device=device,
        progress=progress,
    )
    notes = [score.note] if score.note else []
    if score.images.broken:
        notes.append(describe_broken(score.images.broken))
    if progress:
        for text in notes:
            _print(text, stderr=True)
    if folder is not None:
        command = ["pacavit", "evaluate", str(model)]
        for option, value in (("--data", data), ("--out", out)):
            command += [] if value is None else [option, str(value)]
        command += [] if split == "test" else ["--split", split]
        _save_score(score, loaded, folder, split=split, command=command, device=device)
    if report_file(model, out=out) is not None:
        try:
            _write_report(Path(model), loaded, progress=progress)
        except PacavitError as error:
            # The scores are there, and may have taken hours.
            text = f"the report could not be made: {error}"
            if progress:
                _print(f"warning: {text}", stderr=True)
            else:
                warnings.warn(text, stacklevel=2)
    return score.evaluation


def compare(
    recipe: str | Path,
    over: str | Sequence[str],
    out: str | Path,
    *,
    seeds: Sequence[int] = (0,),
    data: str | Path | None = None,
    set: Sequence[str] = (),  # noqa: A002 - the same name as on the command line
    progress: bool = False,
) -> Comparison:
    """Train a recipe with several values of a field, measure all, and put them side by side.

    Repeating the call goes on where it was stopped: runs that are trained and measured stay.

    Args:
        recipe: name of a packaged recipe, or a recipe file.
        over: ``"field.path=a,b,c"``, for example ``"model.clustering=conv,mlp,kmeans"``; of several
            fields, each value is a row of its own, with the recipe's values of the other fields.
        out: folder for the runs, ``comparison.html``, ``comparison.md``, and two pictures.
        seeds: each value is trained with each of them.
        data: folder with the data set, instead of the recipe's; relative to the current folder.
        set: ``"field.path=value"`` changes of all runs.
        progress: show live progress on the console.

    Raises:
        PacavitError: anything a user can mend; the message says what and where.
    """
    out = Path(out)
    over = [over] if isinstance(over, str) else over
    plan = make_plan(recipe, over, seeds=seeds, changes=set, out=out)
    results = []
    for number, run in enumerate(plan.runs, 1):
        if progress:
            _print(f"run {number} of {len(plan.runs)}: {run.field}={run.value}, seed {run.seed}")
        results.append(_finish(run, data, progress=progress))
    command = ["pacavit", "compare", str(recipe), *(w for each in over for w in ("--over", each))]
    command += ["--seeds", ",".join(map(str, plan.seeds)), "--out", "DIR"]
    command += [] if data is None else ["--data", "ROOT"]
    command += [word for change in set for word in ("--set", change)]
    name = plan.runs[0].recipe.name
    comparison = compare_runs(plan.fields, name, shlex.join(command), results)
    write_comparison(comparison, out)
    return comparison


def reproduce(
    name: str,
    out: str | Path,
    *,
    data: str | Path | None = None,
    progress: bool = False,
) -> tuple[Published, Evaluation]:
    """Train and measure again what a published number was measured of.

    Repeating the call goes on where it was stopped.

    Args:
        name: of the number; ``pacavit.published()`` has all.
        out: folder of the run.
        data: folder with the data set.
        progress: show live progress on the console.

    Returns:
        What was published, and what was measured now.

    Raises:
        PacavitError: anything a user can mend; the message says what and where.
    """
    entry = find_published(name)
    recipe = recipes.load(entry.recipe, entry.changes)
    run = PlannedRun("", name, name, recipe.train.seed, Path(out), recipe)
    return entry, _finish(run, data, progress=progress).evaluation


def _finish(run: PlannedRun, data: str | Path | None, *, progress: bool) -> RunResult:
    """Train and measure what is not trained and measured yet."""
    result = _finished(run, data)
    if result is None:
        begun = (run.folder / RECIPE_FILE).is_file()
        try:
            train(run.recipe, run.folder, data=data, resume=begun, progress=progress)
        except Interrupted:
            raise Interrupted("repeat the same command to go on") from None
        evaluate(run.folder, data=data, progress=progress)
        result = _finished(run, data)
        assert result is not None
    return result


def _finished(run: PlannedRun, data: str | Path | None) -> RunResult | None:
    """A planned run that needs no more work; None for any other."""
    if not (run.folder / WEIGHTS).is_file():
        return None
    recipe_to_resume(run.recipe, run.folder)
    model = load_model(run.folder)
    root = model.recipe.data.root
    if data is not None and Path(data).absolute() != root:
        raise CheckpointError(
            f"{run.folder} was trained on the data in {root}; give that, or another out"
        )
    return read_run(run.label, run.seed, run.folder, model)


def results_folder(
    model: str | Path, *, split: str = "test", out: str | Path | None = None
) -> Path | None:
    """Where ``evaluate`` saves its results, given the same arguments; None for nowhere.

    Raises:
        UnknownNameError: there is no such split.
        PacavitError: a file is in the way.
    """
    split = _check_split(split)
    if out is not None:
        folder = Path(out)
    elif _is_run(model):
        folder = evaluation_folder(Path(model), split)
    else:
        return None
    if folder.exists() and not folder.is_dir():
        raise PacavitError(f"cannot save results in {folder}: it is a file; choose another folder")
    return folder


def _check_split(split: str) -> Split:
    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    return split


def report_file(model: str | Path, *, out: str | Path | None = None) -> Path | None:
    """The report that ``evaluate`` brings up to date, given the same arguments; None for none."""
    return Path(model) / REPORT if out is None and _is_run(model) else None


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
    paths = find_images([images] if isinstance(images, str | Path) else images)
    loaded = load_model(model)
    return predict_images(loaded, paths, top_k=top_k, device=pick_device("auto"), progress=progress)


def explain(
    model: str | Path,
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    label: str | int | None = None,
    stage: int | None = None,
    method: str = DEFAULT_METHOD,
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
        method: registered name, as ``list_names("methods")`` has them.
        overwrite: replace the explanations in ``out``.
        progress: show a progress bar when there are several images.

    Returns:
        One record an image, in order; an image that cannot be explained has its ``error`` set.

    Raises:
        PacavitError: anything else that a user can mend; the message says what and where.
    """
    check_folder(Path(out), overwrite=overwrite)
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
    progress: bool = False,
) -> BenchReport:
    """Measure how true the maps of explanation methods are, on the same images for all.

    Writes ``bench.html``, ``bench.md``, ``bench.json`` and ``bench.svg``; older ones are replaced.

    Args:
        model: run folder, weights file or packaged name.
        out: folder, made if it is not there.
        data: folder with the data set, instead of the one the model was trained on.
        methods: registered names, the first of which the others are compared with; None is all
            that can explain the model.
        split: "train", "val" or "test".
        limit: images, drawn from the split once and for all.
        progress: show a progress bar.

    Raises:
        PacavitError: anything a user can mend; the message says what and where.
    """
    loaded, device = load_model(model), pick_device("auto")
    found = bench_model(
        loaded,
        split=_check_split(split),
        root=None if data is None else Path(data),
        methods=methods,
        limit=limit,
        device=device,
        progress=progress,
    )
    words = ["pacavit", "explain-bench", str(model), "--out", "DIR", "--limit", str(limit)]
    words += [] if data is None else ["--data", "ROOT"]
    words += [] if methods is None else ["--methods", ",".join(methods)]
    words += [] if split == "test" else ["--split", split]
    report = BenchReport(
        Path(model).name, f"{loaded.info.copy}, {split} split", shlex.join(words), found
    )
    write_bench(report, Path(out))
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
    serve(models, host=host, port=port, browser=browser, write=write_explanations, tell=_print)


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
    that no run of this package trained, there is ``pacavit.engine.hub.save_pretrained``.

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


def list_names(kind: str) -> list[Entry]:
    """What exists of a kind.

    Args:
        kind: models, clusterings, attentions, methods, recipes, datasets or weights.

    Raises:
        UnknownNameError: there is no such kind.
    """
    if kind not in _LISTS:
        raise UnknownNameError("kind", kind, _LISTS)
    return _LISTS[kind]()


def _is_run(model: str | Path) -> bool:
    return (
        model not in packaged_names()
        and Path(model).is_dir()
        and not (Path(model) / hub.CONFIG).is_file()  # what is published holds nothing else
    )


def _report_training(run: Path, *, progress: bool) -> None:
    """Draw the curves, measure the validation images, and write the report of a finished run."""
    model = load_model(run)
    plot_curves(run, model.task.main_metric)
    # A finished run that is "resumed" has been measured, and its images may be elsewhere by now.
    if isinstance(model.task, ClassificationTask) and "val" not in evaluations(run, model):
        device = pick_device(model.recipe.train.device)
        score = score_model(model, "val", device=device, progress=progress)
        command = ["pacavit", "evaluate", str(run), "--split", "val"]
        folder = evaluation_folder(run, "val")
        _save_score(score, model, folder, split="val", command=command, device=device)
    _write_report(run, model, progress=progress)


def _write_report(run: Path, model: LoadedModel, *, progress: bool) -> None:
    page = write_run_page(run, model)
    if progress:
        _print(f"report in {page}")


def _print(text: str, *, stderr: bool = False) -> None:
    """One line on the console, as it is."""
    Console(stderr=stderr).print(text, highlight=False, markup=False, soft_wrap=True)


def _save_score(
    score: SplitScore,
    model: LoadedModel,
    folder: Path,
    *,
    split: str,
    command: Sequence[str],
    device: torch.device,
) -> None:
    """Write an evaluation with what makes it repeatable."""
    facts = {
        "command": shlex.join(command),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataset": score.info.name,
        "data": score.info.copy,
        "trained_on": model.info.copy,
        "split": split,
        "broken_images": list(score.images.broken.values()),
        "weights_sha256": weights_digest(model),
        "environment": environment(device),
    }
    write_evaluation(score, folder, title=f"{score.info.copy}, {split}", facts=facts)


def _models() -> list[Entry]:
    names = timm.list_models("pacavit_*")
    return [Entry(name, _first_line(timm.model_entrypoint(name))) for name in names]


def _recipes() -> list[Entry]:
    return [Entry(name, recipes.load(name).description) for name in recipes.names()]


def _weights() -> list[Entry]:
    folder = resources.files("pacavit") / "weights"
    cards = {name: folder / f"{name}.md" for name in packaged_names()}
    return [Entry(name, card_summary(card.read_text("utf-8"))) for name, card in cards.items()]


def _registered(registry: Registry[Any]) -> list[Entry]:
    return [Entry(name, _first_line(registry.get(name))) for name in registry]


def _first_line(documented: object) -> str:
    """The first line of a docstring."""
    return (inspect.getdoc(documented) or "").partition("\n")[0]


_LISTS: dict[str, Callable[[], list[Entry]]] = {
    "models": _models,
    "clusterings": lambda: _registered(CLUSTERINGS),
    "attentions": lambda: _registered(ATTENTIONS),
    "methods": lambda: _registered(METHODS),
    "recipes": _recipes,
    "datasets": lambda: _registered(DATASETS),
    "weights": _weights,
}
