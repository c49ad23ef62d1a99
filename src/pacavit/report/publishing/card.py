"""Model cards: what a person should know before using weights, in Markdown, made from a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from pacavit.attention import Attention
from pacavit.clustering import CLUSTERINGS, Clustering
from pacavit.engine.evaluate import Evaluation
from pacavit.engine.weights import hub
from pacavit.engine.weights.load import LoadedModel
from pacavit.models import count_macs
from pacavit.report.publishing.command import training_command

__all__ = ["card_summary", "input_size", "model_card", "with_clusterings"]


def model_card(
    name: str,
    model: LoadedModel,
    evaluation: Evaluation,
    *,
    environment: Mapping[str, Any],
    seconds: float,
    evaluation_command: str,
    source: str | None = None,
    half: bool = False,
    license_name: str = "Apache-2.0",
) -> str:
    """The card of trained weights, as Markdown text.

    Args:
        name: of the weights.
        model: loaded from the very file that the card describes; its recipe is the run's.
        evaluation: of that file, on the test split.
        environment: of the training, as in the run's ``environment.json``.
        seconds: of the training.
        evaluation_command: which repeats the scores.
        source: what commands take to find the weights; None is the name.
        half: the file holds half-precision numbers.
        license_name: of the weights.
    """
    info = model.info
    sections = (
        f"# {name}",
        f"`{model.recipe.model.name}`{with_clusterings(model.task.model)}, trained on "
        f"{info.version}: test accuracy {evaluation.accuracy:.4f} "
        f"({evaluation.num_images:,} images, no test-time augmentation).",
        _use(source or name),
        _results(evaluation, evaluation_command, "half" if half else "full"),
        _training(model, environment, seconds),
        _limits(model, evaluation),
        f"## Licence\n\nThe weights are under {license_name}. The training images have terms of "
        "their own.",
    )
    return "\n\n".join(sections) + "\n"


def card_summary(card: str) -> str:
    """The paragraph below the title of a card, in one line without mark-up."""
    return " ".join(card.split("\n\n")[1].split()).replace("`", "")


def _use(source: str) -> str:
    python = ["import pacavit", "", f'pacavit.predict("{source}", ["IMAGE.png"])']
    if source.startswith(hub.PREFIX):
        python.append(f'network = pacavit.from_pretrained("{source}")  # for timm and torch')
    return (
        "## Use\n\n"
        f"```sh\npacavit predict {source} IMAGE.png\n```\n\n"
        "```python\n" + "\n".join(python) + "\n```"
    )


def _results(evaluation: Evaluation, command: str, precision: str) -> str:
    rows = [
        "## Results on the test split",
        "",
        "| average | accuracy | precision | recall | F1 |",
        "|---|---|---|---|---|",
    ]
    for average in ("macro", "weighted"):
        scores = [evaluation.accuracy]
        scores += [
            getattr(evaluation, f"{kind}_{average}") for kind in ("precision", "recall", "f1")
        ]
        rows.append(f"| {average} | " + " | ".join(f"{score:.4f}" for score in scores) + " |")
    rows += ["", "| class | precision | recall | F1 | images |", "|---|---|---|---|---|"]
    for row in evaluation.per_class:
        name = row.name.replace("|", r"\|")
        scores = [row.precision, row.recall, row.f1]
        cells = " | ".join(f"{score:.4f}" for score in scores)
        rows.append(f"| {name} | {cells} | {row.support} |")
    rows += [
        "",
        f"Of the stored {precision}-precision file, measured by",
        "",
        f"```sh\n{command}\n```",
    ]
    return "\n".join(rows)


def _training(model: LoadedModel, environment: Mapping[str, Any], seconds: float) -> str:
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
            f"- Time: {seconds / 60:.1f} minutes",
            f"- Machine: {machine}",
            f"- Versions: {versions}",
            "",
            f"```sh\n{training_command(recipe)}\n```",
        )
    )


def _limits(model: LoadedModel, evaluation: Evaluation) -> str:
    height, width = input_size(model)
    return (
        "## Limits\n\n"
        f"The network knows {len(model.info.class_names)} classes and names one of them for any "
        f"picture, however wrong. It sees pictures at {width} x {height} pixels; larger ones are "
        "reduced, so small things in them are lost. Its probabilities are not calibrated: on "
        f"average they are off by {evaluation.calibration_error:.3f} (expected "
        "calibration error, 15 bins). Another seed gives somewhat other numbers."
    )


def input_size(model: LoadedModel) -> tuple[int, int]:
    """(height, width) of what the network sees, in pixels."""
    size = model.recipe.task.image_size
    return model.info.image_size if size is None else (size, size)


def with_clusterings(network: nn.Module) -> str:
    """What to say behind a network's name, such as " with conv clustering (16, 16 clusters)".

    Nothing of networks without an attention of ours.
    """
    modules = [module for module in network.modules() if isinstance(module, Clustering)]
    if not modules:
        ours = any(isinstance(module, Attention) for module in network.modules())
        return " with full attention" if ours else ""
    used = {type(module) for module in modules}
    names = [name for name in CLUSTERINGS if CLUSTERINGS.get(name) in used]
    numbers = ", ".join(str(module.num_clusters) for module in modules)
    return f" with {' and '.join(names)} clustering ({numbers} clusters)"
