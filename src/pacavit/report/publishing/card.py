"""Model cards in Markdown for the weights of a run: use, results, training, limitations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from pacavit.attention import Attention
from pacavit.clustering import CLUSTERINGS, Clustering
from pacavit.detectors import DETECTORS, Detector
from pacavit.engine.evaluate import Evaluation
from pacavit.engine.weights import hub
from pacavit.engine.weights.load import LoadedModel
from pacavit.heads import HEADS, SegmentationHead
from pacavit.models import count_macs
from pacavit.report import markdown
from pacavit.report.publishing.command import training_command
from pacavit.report.tasks import report_of
from pacavit.tasks import ImageClassifier
from pacavit.utils.command import Command, pacavit_command
from pacavit.utils.registry import Registry

__all__ = ["card_summary", "input_size", "model_card", "with_clusterings"]


def model_card(
    name: str,
    model: LoadedModel,
    evaluation: Evaluation,
    *,
    environment: Mapping[str, Any],
    seconds: float,
    evaluation_command: Command,
    outcome: Sequence[str] = (),
    source: str | None = None,
    half: bool = False,
    license_name: str = "Apache-2.0",
) -> str:
    """The card of trained weights, as Markdown text.

    Args:
        name: of the weights.
        model: loaded from the file that the card describes, with the recipe of the run.
        evaluation: of the model on the test split.
        environment: of the training, as in the run's ``environment.json``.
        seconds: duration of the training.
        evaluation_command: repeats the evaluation.
        outcome: of the training, as ``describe_outcome`` words it.
        source: argument of commands for the weights; None is the name.
        half: the file holds half-precision numbers.
        license_name: of the weights.
    """
    info = model.info
    sections = (
        f"# {name}",
        f"`{model.recipe.model.name}`{with_clusterings(model.task.model)}, trained on "
        f"{info.version}: {report_of(evaluation.task).card_summary(evaluation)} "
        f"({evaluation.num_images:,} images, no test-time augmentation).",
        _use(source or name, model),
        _results(evaluation, evaluation_command, "half" if half else "full"),
        _training(model, environment, seconds, outcome),
        _limits(model, evaluation),
        f"## License\n\nThe weights are under {license_name}. The training images have terms of "
        "their own.",
    )
    return "\n\n".join(sections) + "\n"


def card_summary(card: str) -> str:
    """The first paragraph of a card, in one line without markup."""
    return " ".join(card.split("\n\n")[1].split()).replace("`", "")


def _use(source: str, model: LoadedModel) -> str:
    classifies = isinstance(model.task, ImageClassifier)
    folder = {} if classifies else {"out": "DIR"}
    call = f'pacavit.predict("{source}", ["IMAGE.png"]'
    python = ["import pacavit", "", f"{call})" if classifies else f'{call}, out="DIR")']
    if classifies and source.startswith(hub.PREFIX):
        python.append(f'network = pacavit.from_pretrained("{source}")  # for timm and torch')
    return (
        "## Use\n\n"
        f"{markdown.shell(pacavit_command('predict', source, 'IMAGE.png', **folder))}\n\n"
        f"{markdown.code('python', *python)}"
    )


def _results(evaluation: Evaluation, command: Command, precision: str) -> str:
    tables = report_of(evaluation.task).card_tables(evaluation)
    parts = ["## Results on the test split", ""]
    for header, rows in tables:
        parts += [markdown.table(header, rows), ""]
    parts += [
        f"Of the stored {precision}-precision file, measured by",
        "",
        markdown.shell(command),
    ]
    return "\n".join(parts)


def _training(
    model: LoadedModel,
    environment: Mapping[str, Any],
    seconds: float,
    outcome: Sequence[str],
) -> str:
    recipe, info, network = model.recipe, model.info, model.task.model
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    macs = count_macs(network, input_size(model))
    machine = environment.get("gpu") or f"{environment['cpu']}, threads: {environment['threads']}"
    versions = ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
    return "\n".join(
        (
            "## Training",
            "",
            f"- Network: `{recipe.model.name}`{with_clusterings(network)}; "
            f"{num_parameters:,} parameters, {macs / 1e6:.1f} M multiply-accumulates an image",
            f"- Data: {info.version}, {len(info.class_names)} classes; choices were made on "
            "validation images held out of the training set",
            f"- Recipe: `{recipe.name}`, {recipe.train.epochs} epochs, seed {recipe.train.seed}, "
            "one run",
            *(f"- {line[0].upper()}{line[1:]}" for line in outcome),
            f"- Time: {seconds / 60:.1f} minutes",
            f"- Machine: {machine}",
            f"- Versions: {versions}",
            "",
            markdown.shell(training_command(recipe)),
        )
    )


def _limits(model: LoadedModel, evaluation: Evaluation) -> str:
    report = report_of(evaluation.task)
    return (
        "## Limits\n\n"
        f"{report.card_limits(model.info, evaluation)} {report.card_input(input_size(model))} "
        "Scores vary with the seed of the training."
    )


def input_size(model: LoadedModel) -> tuple[int, int]:
    """(height, width) of the network's input in pixels."""
    return model.recipe.task.input_size(model.info.image_size)


def with_clusterings(network: nn.Module) -> str:
    """A suffix for a network's name, such as " with conv clustering (16, 16 clusters)".

    It names the head of a dense task too, as in ", paca head", and a detector. Empty for
    classifiers without an attention of this package.
    """
    if isinstance(network, Detector):
        return f"{_clusterings(network)}, {_name_of(network, DETECTORS)} detector"
    head = next((each for each in network.children() if isinstance(each, SegmentationHead)), None)
    return _clusterings(network) + ("" if head is None else f", {_name_of(head, HEADS)} head")


def _name_of(module: nn.Module, registry: Registry[Any]) -> str:
    """The registered name of a head or detector; that of its class if there is none."""
    names = (name for name in registry if registry.get(name) is type(module))
    return next(names, type(module).__name__)


def _clusterings(network: nn.Module) -> str:
    modules = [module for module in network.modules() if isinstance(module, Clustering)]
    if not modules:
        attends = any(isinstance(module, Attention) for module in network.modules())
        return " with full attention" if attends else ""
    used = {type(module) for module in modules}
    names = [name for name in CLUSTERINGS if CLUSTERINGS.get(name) in used]
    numbers = ", ".join(str(module.num_clusters) for module in modules)
    return f" with {' and '.join(names)} clustering ({numbers} clusters)"
