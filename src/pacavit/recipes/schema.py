"""The schema of recipes: one complete, named run, with every field typed and described.

The models are strict (no silent conversion between types), frozen, and refuse unknown fields.
Files go through ``recipes.io``, which turns validation errors into one line.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import unquote_to_bytes, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidatorFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_validator,
)

from pacavit.recipes.options import check_bounds
from pacavit.tasks import TASKS, TaskConfig

__all__ = [
    "DEFAULT_TASK",
    "MAX_IMAGE_SIZE",
    "DataConfig",
    "ModelConfig",
    "Recipe",
    "TrainConfig",
]

DEFAULT_TASK = "classification"

MAX_IMAGE_SIZE = 4096
"""Largest height and width in pixels of a network's input."""
MAX_CLUSTERS = 2**14

Fraction: TypeAlias = Annotated[float, Field(ge=0.0, le=1.0)]
Count: TypeAlias = Annotated[int, Field(ge=0, lt=2**31)]
Size: TypeAlias = Annotated[int, Field(ge=1, lt=2**31)]
ImageSize: TypeAlias = Annotated[int, Field(ge=1, le=MAX_IMAGE_SIZE)]
Clusters: TypeAlias = Annotated[int, Field(ge=0, le=MAX_CLUSTERS)]
Options: TypeAlias = dict[str, Any]


def _within_bounds(options: Options) -> Options:
    check_bounds(options)
    return options


ModelOptions: TypeAlias = Annotated[Options, AfterValidator(_within_bounds)]


class _Section(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(_Section):
    """Which images."""

    name: str = Field(description="registered data set, see `pacavit list datasets`")
    root: Path | None = Field(
        None,
        description="folder with the data, relative to the working directory (a run records it "
        "in full); None: the set's default",
    )
    val_size: Count | None = Field(
        None, description="images held out of the training set; None: the set's default"
    )
    num_workers: Count | None = Field(
        None,
        le=1024,
        description="processes that read image files, for each training process; affects the "
        "speed only; None: one per core, divided among the training processes of the machine. "
        "Images in memory need none",
    )
    duplicates: Literal["refuse", "warn", "ignore"] | None = Field(
        None,
        description="images that are in two splits: refuse exact copies and warn of "
        "near-duplicates, warn of both, or do not look for them; None: refuse for images of your "
        "own, warn for published data sets, ignore for more than 50,000 images",
    )
    options: Options = Field(
        {}, description="further keyword arguments of the data set's class, such as a variant"
    )

    @field_validator("root", mode="wrap")
    @classmethod
    def _read_root(cls, value: Any, check: ValidatorFunctionWrapHandler) -> Path | None:
        """Expand ``~``, and decode the URI of ``_write_root``."""
        if not isinstance(value, str):
            root: Path | None = check(value)
            return root
        if value.startswith("file:///"):
            return Path(os.fsdecode(unquote_to_bytes(urlsplit(value).path)))
        return Path(os.path.expanduser(value))  # noqa: PTH111 (a home that is unknown stays)

    @field_serializer("root", when_used="json")
    def _write_root(self, root: Path | None) -> str | None:
        """The path; as a file URI if it is not UTF-8, which JSON could not contain."""
        if root is None:
            return None
        try:
            str(root).encode()
        except UnicodeEncodeError:
            return root.absolute().as_uri()
        return str(root)


class ModelConfig(_Section):
    """Which network. None leaves an argument to the model's own default."""

    name: str = Field(description="timm model name, see `pacavit list models`")
    clustering: str | tuple[str, ...] | None = Field(
        None, description="clustering method, one for all stages or one per stage"
    )
    num_clusters: Clusters | tuple[Clusters, ...] | None = Field(
        None, description="clusters M, one for all stages or one per stage"
    )
    clustering_options: ModelOptions | tuple[ModelOptions, ...] | None = Field(
        None, description="keyword arguments of the clustering class, for all or per stage"
    )
    attention: str | tuple[str, ...] | None = Field(
        None, description="attention, one for all stages or one per stage"
    )
    attention_options: ModelOptions | tuple[ModelOptions, ...] | None = Field(
        None, description="keyword arguments of the attention class, for all or per stage"
    )
    recluster_every: Count | tuple[Count, ...] | None = Field(
        None, description="a new clustering every so many blocks; 0: once per stage"
    )
    drop_path: Fraction = Field(0.0, description="stochastic depth rate of the last block")
    init: str | None = Field(
        None,
        description="trained weights to start from: run folder, weights file, packaged name, "
        "timm:NAME, hf-hub:USER/NAME, or a .pth or .safetensors of timm, torchvision or the "
        "authors; None: random",
    )
    options: ModelOptions = Field({}, description="further keyword arguments of the model factory")


class TrainConfig(_Section):
    """How the network is trained."""

    epochs: int = Field(ge=1, le=10**6, description="passes over the training images")
    seed: Count = Field(
        0, lt=2**32, description="of weights, order, augmentation and stochastic depth"
    )
    batch_size: Size = Field(description="images per step, of all processes together")
    micro_batch: Size | None = Field(
        None,
        description="largest number of images that a process computes at once, to save memory: "
        "larger shards of a batch are split, and gradients accumulated; None: no splitting",
    )
    parallel: Literal["ddp", "fsdp"] = Field(
        "ddp",
        description="with several processes (torchrun): each holds a copy of network and "
        "optimizer (ddp), or a shard of them, to save memory (fsdp)",
    )
    optimizer: str = Field("adamw", description='timm optimizer name, such as "adamw" or "muon"')
    optimizer_options: Options = Field({}, description="keyword arguments of the optimizer")
    lr: float = Field(gt=0, description="learning rate after warm-up")
    min_lr: float = Field(0.0, ge=0, description="learning rate at the end")
    lr_scales: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {},
        description='factors of the learning rate by parameter name, as in {"stem.*" = 5.0}; '
        "the first matching pattern is used",
    )
    layer_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="factor of the learning rate from each layer to the one before it, for "
        "fine-tuning; None: the same for all layers",
    )
    head_lr_scale: float = Field(
        1.0,
        gt=0,
        description="factor of the learning rate of all layers outside the backbone: the head of a "
        "dense task, or a classifier's last layer",
    )
    cluster_lr_scale: float = Field(
        1.0, gt=0, description="factor of the learning rate of the layers that cluster"
    )
    cluster_lr_layers: Literal["all", "last"] = Field(
        "all",
        description="which layers of a clustering cluster_lr_scale is for: all, or the last, which "
        "computes a score per cluster",
    )
    weight_decay: float = Field(
        0.05, ge=0, description="of all parameters but those that weight_decay_exempt names"
    )
    weight_decay_exempt: Literal["vectors", "layer_norms"] = Field(
        "vectors",
        description="without weight decay: all vectors, such as biases and the scales of norms, or "
        "the parameters of LayerNorms alone",
    )
    warmup: Fraction = Field(0.1, description="fraction of all steps in which the rate increases")
    schedule: Literal["linear", "cosine", "steps"] = Field(
        "linear",
        description="how the learning rate decreases after warm-up: to min_lr at the end, or in "
        "steps to a tenth each, at lr_drops",
    )
    lr_drops: tuple[Fraction, ...] = Field(
        (),
        description="fractions of all steps after which the learning rate is divided by 10, for "
        'the schedule "steps"',
    )
    class_weights: Literal["balanced"] | dict[str, Annotated[float, Field(gt=0)]] | None = Field(
        None,
        description='weights of classes in the loss: "balanced", so that all classes have the '
        "same total weight (multi-label: of each class, images with and without it; masks: by "
        "median frequency, Eigen & Fergus 2015), or numbers by class name, 1 for classes not "
        "named; None: all images, or all pixels, count the same",
    )
    clip: float | None = Field(None, gt=0, description="largest gradient norm; None: no clipping")
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="decay of the moving average of the weights; None: no average",
    )
    lookahead: int | None = Field(
        None,
        ge=2,
        lt=2**31,
        description="every so many steps, move the weights back toward a slow copy of them "
        "(Lookahead, Zhang et al. 2019); None: never",
    )
    lookahead_alpha: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="fraction of the way that the slow copy goes to the weights each time",
    )
    whitening: Fraction | None = Field(
        None,
        description="start the first convolution as whitening filters (eigenvectors of patches of "
        "the training images), and keep its weights fixed in this first fraction of the epochs; "
        "0: not fixed; None: random filters",
    )
    freeze: tuple[tuple[Annotated[float, Field(ge=0, lt=1)], Size], ...] = Field(
        (),
        description="(from, layers) pairs: after the fraction `from` of the epochs, the first "
        "`layers` layers no longer learn, which saves their backward passes; layers are those of "
        "layer_decay",
    )
    teacher: str | None = Field(
        None,
        description="trained model to imitate (knowledge distillation): run folder, weights file, "
        "packaged name, or timm:NAME for ImageNet; None: none",
    )
    distillation: Literal["soft", "hard"] = Field(
        "soft", description="imitate the teacher's probabilities, or its decisions"
    )
    distillation_weight: Fraction = Field(
        0.5, description="fraction of the loss that imitates the teacher"
    )
    distillation_temperature: float = Field(
        2.0, gt=0, description="divides both logits before soft probabilities are compared"
    )
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="of the arithmetic; weights stay fp32"
    )
    compile: bool = Field(False, description="torch.compile the training step")
    device: str = Field(
        "auto",
        description='"auto" (an NVIDIA GPU, else that of Apple, else the CPU), "cpu", "cuda:1", '
        '"mps", ...',
    )
    loggers: tuple[str, ...] = Field(
        ("tensorboard",),
        description="where losses and scores are logged beside the run's metrics.jsonl: "
        '"tensorboard", "mlflow", "wandb" (Weights & Biases), see `pacavit list loggers`; '
        "[] for none",
    )
    eval_batch_size: Size = Field(
        500, description="images per step in evaluation, of all processes together"
    )
    checkpoint_minutes: float = Field(
        10.0, gt=0, description="longest time between checkpoints; each epoch ends with one"
    )
    keep_checkpoints: Size = Field(2, description="newest checkpoints to keep")
    keep: Literal["best", "last"] = Field(
        "last",
        description="the run's weights: those of the epoch with the best validation score of the "
        "task's main metric, or of the last epoch",
    )
    patience: Size | None = Field(
        None,
        description="early stopping: end training after so many epochs without a better "
        "validation score; the learning rate still follows all epochs; None: train all epochs",
    )
    progressive: tuple[tuple[Fraction, ImageSize], ...] | None = Field(
        None,
        description="(until, image_size) pairs: use image_size while less than the fraction "
        "`until` of the epochs is done; the task's own image size after the last pair",
    )

    @model_validator(mode="after")
    def _drops_of_steps(self) -> TrainConfig:
        if list(self.lr_drops) != sorted(set(self.lr_drops)):
            raise ValueError("lr_drops: increasing fractions of all steps")
        if bool(self.lr_drops) != (self.schedule == "steps"):
            raise ValueError('schedule = "steps" and lr_drops need each other')
        return self

    @model_validator(mode="after")
    def _with_effect(self) -> TrainConfig:
        if self.lookahead is None and self.lookahead_alpha != 0.5:
            raise ValueError("lookahead_alpha needs lookahead, a number of steps")
        if self.parallel == "fsdp" and (self.freeze or self.whitening is not None):
            raise ValueError('freeze and whitening need parallel = "ddp"')
        return self

    @field_validator("freeze")
    @classmethod
    def _freezing_more(cls, value: tuple[tuple[float, int], ...]) -> tuple[tuple[float, int], ...]:
        if any(list(column) != sorted(set(column)) for column in zip(*value, strict=True)):
            raise ValueError("(from, layers) pairs, both increasing")
        return value

    @field_validator("progressive")
    @classmethod
    def _rising(
        cls, value: tuple[tuple[float, int], ...] | None
    ) -> tuple[tuple[float, int], ...] | None:
        fractions = [until for until, _ in value or ()]
        if sorted(set(fractions)) != fractions:
            raise ValueError("(until, image_size) pairs with increasing fractions")
        return value


class Recipe(_Section):
    """One complete run: task, data, model and training."""

    name: str = Field(description="name of the recipe")
    description: str = Field("", description="what the run is for, in a sentence")
    task: SerializeAsAny[TaskConfig] = Field(
        description="the task, with the fields of the registered task of that name"
    )
    data: DataConfig = Field(description="the images")
    model: ModelConfig = Field(description="the network")
    train: TrainConfig = Field(description="the training")

    @model_validator(mode="after")
    def _one_start(self) -> Recipe:
        if self.model.init is not None and self.train.whitening is not None:
            raise ValueError(
                "train.whitening would replace trained weights of model.init; drop one"
            )
        return self

    @field_validator("task", mode="wrap")
    @classmethod
    def _of_its_task(cls, value: Any, check: ValidatorFunctionWrapHandler) -> TaskConfig:
        """Check the section against the config of the task that it names."""
        name = value.get("name", DEFAULT_TASK) if isinstance(value, dict) else None
        if not isinstance(name, str):
            task: TaskConfig = check(value)  # accepts configs only
            return _bounded(task)
        # As JSON, like the whole recipe: only then do strict models accept arrays for tuples.
        config = TASKS.get(name).config_type
        return _bounded(config.model_validate_json(json.dumps(value, default=str)))


def _bounded(task: TaskConfig) -> TaskConfig:
    """Check the image size of a task, whatever the task."""
    size = task.image_size
    if size is not None and size > MAX_IMAGE_SIZE:
        raise ValueError(f"task.image_size of at most {MAX_IMAGE_SIZE} pixels, not {size}")
    return task
