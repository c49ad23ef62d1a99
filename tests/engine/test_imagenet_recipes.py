"""The published ImageNet recipes: what they say, what they build, and that they train."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pacavit import recipes
from pacavit.clustering import Clustering
from pacavit.engine import build, load_model, train
from pacavit.engine.run.log import read_metrics
from pacavit.engine.scoring import score_model
from pacavit.tasks.classification import ClassificationConfig

# Published: parameters with 1000 classes, drop-path rate, clusterings that learn.
PUBLISHED = {
    "imagenet_tiny": (12_200_680, 0.1, 3),
    "imagenet_small": (22_037_704, 0.1, 3),
    "imagenet_base": (46_911_304, 0.5, 3),
    "imagenet_mlp": (22_637_268, 0.1, 3),
    "imagenet_teacher": (21_075_064, 0.1, 4),
}
# So narrow that a step takes no time; depths and clusterings stay.
NARROW = [
    "model.options.embed_dims=[8, 8, 16, 16]",
    "model.options.num_heads=[1, 1, 2, 2]",
]


@pytest.mark.parametrize("name", PUBLISHED)
def test_training_is_as_published(name: str) -> None:
    recipe = recipes.load(name)
    train, task = recipe.train, recipe.task
    assert isinstance(task, ClassificationConfig)
    assert recipe.data.name == "imagenet"
    assert (train.optimizer, train.optimizer_options) == ("adamw", {"betas": [0.9, 0.999]})
    assert (train.batch_size, train.lr, train.min_lr, train.schedule) == (
        1024,
        1e-3,
        1e-5,
        "cosine",
    )
    assert (train.epochs, train.weight_decay, train.precision) == (300, 0.05, "bf16")
    steps = 1_281_167 // 1024  # an epoch
    assert round(train.warmup * 300 * steps) == 5 * steps
    assert (task.image_size, task.label_smoothing) == (224, 0.1)
    assert task.augment.rand_augment == "rand-m9-n2-mstd0.5-inc1"
    assert (task.augment.flip, task.augment.random_erasing) == ("random", 0.25)
    assert task.crop is not None
    assert (task.crop.scale, task.crop.eval_part) == ((0.08, 1.0), 0.9)
    assert task.crop.interpolation == "bicubic"
    assert (task.mix.mixup, task.mix.cutmix, task.mix.prob, task.mix.until) == (0.8, 1.0, 1.0, 1.0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_networks_are_those_of_the_paper(name: str) -> None:
    recipe = recipes.load(name)
    num_parameters, drop_path, num_clusterings = PUBLISHED[name]
    network = build.model(recipe.model, 1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == num_parameters
    assert recipe.model.drop_path == drop_path
    found = [module for module in network.modules() if isinstance(module, Clustering)]
    assert [module.num_clusters for module in found] == [100] * num_clusterings


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet's layout with two classes of noise in several sizes: 10 images to train on."""
    root, noise = tmp_path_factory.mktemp("imagenet"), np.random.default_rng(0)
    for split, number in (("train", 6), ("val", 2)):
        for synset in ("n01440764", "n01443537"):
            folder = root / split / synset
            folder.mkdir(parents=True)
            for index in range(number):
                pixels = noise.integers(0, 256, (30 + index, 50 - 3 * index, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{synset}_{index}.JPEG")
    return root


@pytest.mark.parametrize("name", PUBLISHED)
def test_two_steps(name: str, photographs: Path, tmp_path: Path) -> None:
    changes = [f"data.root={json.dumps(str(photographs))}", "data.val_size=2"]
    changes += ["data.num_workers=0", "task.image_size=32", "train.device=cpu"]
    changes += ["train.epochs=1", "train.batch_size=5", *NARROW]
    out = train(recipes.load(name, changes), tmp_path / "run", progress=False)
    (row,) = read_metrics(out)
    assert row["step"] == 2
    assert math.isfinite(row["train_loss"])
    score = score_model(load_model(out), "test", device=torch.device("cpu"))
    assert score.info.class_names == ("tench, Tinca tinca", "goldfish, Carassius auratus")
    assert score.evaluation.num_images == 4
