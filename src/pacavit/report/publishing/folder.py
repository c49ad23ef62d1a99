"""A run as a folder for the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from pacavit.engine.evaluate import Evaluation
from pacavit.engine.weights import hub
from pacavit.engine.weights.format import weights_metadata
from pacavit.engine.weights.load import LoadedModel, load_model
from pacavit.errors import CheckpointError
from pacavit.models import PacaViT
from pacavit.report.publishing.card import model_card
from pacavit.report.publishing.packaging import run_facts, score_for_card
from pacavit.report.tasks import report_of
from pacavit.tasks import ImageClassifier

__all__ = ["publish_run"]


def publish_run(
    run: Path,
    folder: Path,
    *,
    repository: str | None = None,
    license_name: str = "apache-2.0",
    data: Path | None = None,
    progress: bool = False,
) -> Path:
    """Write the weights of a finished run, their configuration and a model card.

    The scores in the card are measured on the test split.

    Args:
        run: run folder.
        folder: to write, see ``engine.weights.hub.save_pretrained``.
        repository: USER/NAME on the hub, for the card's examples; by default USER and the name of
            the folder.
        license_name: of the weights, as a license identifier of the hub.
        data: folder with the data set, instead of the run's.
        progress: show a progress bar.

    Returns:
        The folder.

    Raises:
        CheckpointError: the run is not usable, or its network is not a PaCa-ViT; the folder is
            in use, or cannot be written.
        DataError: the test images cannot be read.
    """
    hub.check_folder(folder)
    trained = load_model(run)
    facts = run_facts(run, trained)
    network = trained.task.model
    classifies = isinstance(trained.task, ImageClassifier)
    if classifies and not isinstance(network, PacaViT):
        raise CheckpointError(
            f"{trained.recipe.model.name} is not a PaCa-ViT; publish it with "
            "timm.models.push_to_hf_hub"
        )
    repository = repository or f"USER/{folder.absolute().name}"
    name, source = repository.rpartition("/")[2], f"{hub.PREFIX}{repository}"
    evaluation, command = score_for_card(trained, source, data=data, progress=progress)
    text = model_card(
        name,
        trained,
        evaluation,
        **facts._asdict(),
        evaluation_command=command,
        source=source,
        license_name=license_name,
    )
    header = _header(name, trained, evaluation, license_name)
    card = f"---\n{header}\n---\n\n{text}"
    info, config = trained.info, trained.task.config
    metadata = weights_metadata(trained.recipe, info, trained.metrics, trained.calibration)
    if not isinstance(network, PacaViT):
        return hub.save_task(
            network, folder, card, task=config.name, class_names=info.class_names, metadata=metadata
        )
    size, crop = config.image_size, getattr(config, "crop", None)
    return hub.save_pretrained(
        network,
        folder,
        card,
        class_names=info.class_names,
        facts={
            "input_size": (3, *(info.image_size if size is None else (size, size))),
            "mean": info.mean,
            "std": info.std,
            "interpolation": "bilinear" if crop is None else crop.interpolation,
            "crop_pct": 1.0 if crop is None else crop.eval_part,
            "license": license_name,
        },
        metadata=metadata,
    )


def _header(name: str, model: LoadedModel, evaluation: Evaluation, license_name: str) -> str:
    """The metadata of a card for the hub, as YAML."""
    kind = report_of(evaluation.task).hub_task
    scores = report_of(evaluation.task).hub_scores(evaluation)
    results = [
        EvalResult(
            task_type=kind,
            dataset_type=model.info.name,
            dataset_name=model.info.version,
            dataset_split="test",
            metric_type=metric,
            metric_value=round(score, 4),
        )
        for metric, score in scores.items()
    ]
    data = ModelCardData(
        license=license_name,
        library_name="pacavit",
        pipeline_tag=kind,
        tags=[kind, "pacavit", *(["timm"] if isinstance(model.task, ImageClassifier) else [])],
        metrics=list(scores),
        model_name=name,
        eval_results=results,
    )
    return data.to_yaml()
