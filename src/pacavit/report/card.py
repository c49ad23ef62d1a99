"""Model cards: what a person should know before using weights, in Markdown, made from a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pacavit.clustering import CLUSTERINGS, Clustering
from pacavit.engine.evaluate import Evaluation
from pacavit.engine.weights import LoadedModel
from pacavit.report.command import training_command

__all__ = ["card_summary", "count_macs", "model_card", "name_clusterings"]


def model_card(
    name: str,
    model: LoadedModel,
    evaluation: Evaluation,
    *,
    environment: Mapping[str, Any],
    seconds: float,
    evaluation_command: str,
) -> str:
    """The card of trained weights, as Markdown text.

    Args:
        name: of the weights.
        model: loaded from the very file that the card describes; its recipe is the run's.
        evaluation: of that file, on the test split.
        environment: of the training, as in the run's ``environment.json``.
        seconds: of the training.
        evaluation_command: which repeats the scores.
    """
    info = model.info
    sections = (
        f"# {name}",
        f"`{model.recipe.model.name}` with {name_clusterings(model.task.model)}, trained on "
        f"{info.copy}: test accuracy {evaluation.accuracy:.4f} ({evaluation.num_images:,} images, "
        "no test-time augmentation).",
        _use(name),
        _results(evaluation, evaluation_command),
        _training(model, environment, seconds),
        _limits(model),
        "## Licence\n\nThe weights are under Apache-2.0, like the package. The training images "
        "have terms of their own.",
    )
    return "\n\n".join(sections) + "\n"


def card_summary(card: str) -> str:
    """The paragraph below the title of a card, in one line without mark-up."""
    return " ".join(card.split("\n\n")[1].split()).replace("`", "")


def count_macs(model: nn.Module, image_size: tuple[int, int]) -> int:
    """Multiply-accumulates of convolutions and matrix products for one image.

    Args:
        model: the network, on any device.
        image_size: (height, width) in pixels.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    # The counter does not know every fused attention kernel; the plain one is matrix products.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, *image_size, device=device))
    model.train(training)
    return int(counter.get_total_flops()) // 2


def _use(name: str) -> str:
    return (
        "## Use\n\n"
        f"```sh\npacavit predict {name} IMAGE.png\n```\n\n"
        "```python\nimport pacavit\n\n"
        f'pacavit.predict("{name}", ["IMAGE.png"])\n```'
    )


def _results(evaluation: Evaluation, command: str) -> str:
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
    rows += ["", "Of the stored half-precision file, measured by", "", f"```sh\n{command}\n```"]
    return "\n".join(rows)


def _training(model: LoadedModel, environment: Mapping[str, Any], seconds: float) -> str:
    recipe, info, network = model.recipe, model.info, model.task.model
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    macs = count_macs(network, _input_size(model))
    machine = environment.get("gpu") or f"{environment['cpu']}, threads: {environment['threads']}"
    versions = ", ".join(f"{name} {number}" for name, number in environment["versions"].items())
    return "\n".join(
        (
            "## Training",
            "",
            f"- Network: `{recipe.model.name}` with {name_clusterings(network)}; "
            f"{num_parameters:,} parameters, {macs / 1e6:.1f} M multiply-accumulates an image",
            f"- Data: {info.copy}, {len(info.class_names)} classes; choices were made on "
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


def _limits(model: LoadedModel) -> str:
    height, width = _input_size(model)
    return (
        "## Limits\n\n"
        f"The network knows {len(model.info.class_names)} classes and names one of them for any "
        f"picture, however wrong. It sees pictures at {width} x {height} pixels; larger ones are "
        "reduced, so small things in them are lost. Its probabilities are not calibrated. Another "
        "seed gives somewhat other numbers."
    )


def _input_size(model: LoadedModel) -> tuple[int, int]:
    """(height, width) of what the network sees, in pixels."""
    size = model.recipe.task.image_size
    return model.info.image_size if size is None else (size, size)


def name_clusterings(network: nn.Module) -> str:
    """Which clusterings a network computes, such as "conv clustering (16, 16 clusters)"."""
    modules = [module for module in network.modules() if isinstance(module, Clustering)]
    if not modules:
        return "full attention"
    used = {type(module) for module in modules}
    names = [name for name in CLUSTERINGS if CLUSTERINGS.get(name) in used]
    numbers = ", ".join(str(module.num_clusters) for module in modules)
    return f"{' and '.join(names)} clustering ({numbers} clusters)"
