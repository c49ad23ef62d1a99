"""The published ADE20K recipes: what they say, and what they build."""

from __future__ import annotations

import pytest
import torch

from pacavit import recipes
from pacavit.clustering import Clustering
from pacavit.data import DataInfo
from pacavit.engine import build, optim
from pacavit.tasks.segmentation import SegmentationConfig

# Published: parameters with 150 classes, drop-path rate.
PUBLISHED = {
    "ade20k_tiny_paca": (13_326_764, 0.1),
    "ade20k_small_paca": (23_163_788, 0.1),
    "ade20k_base_paca": (47_964_940, 0.5),
    "ade20k_tiny_upernet": (41_561_516, 0.1),
    "ade20k_small_upernet": (51_398_540, 0.1),
    "ade20k_base_upernet": (77_182_732, 0.1),
}
CLASSES = tuple(f"class {index}" for index in range(150))
INFO = DataInfo("ade20k", "of the test", CLASSES, (512, 683), (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("name", PUBLISHED)
def test_training_is_as_published(name: str) -> None:
    recipe = recipes.load(name)
    train, task = recipe.train, recipe.task
    assert isinstance(task, SegmentationConfig)
    assert recipe.data.name == "ade20k"
    assert (task.image_size, task.longest_side, task.crop_size) == (512, 2048, (512, 512))
    assert (task.augment.scale, task.augment.flip) == ((0.5, 2.0), "random")
    assert (task.augment.photometric, task.augment.max_class_fraction) == (1.0, 0.75)
    assert (train.optimizer, train.optimizer_options) == ("adamw", {"betas": [0.9, 0.999]})
    assert (train.lr, train.min_lr, train.schedule, train.precision) == (
        6e-5,
        0.0,
        "linear",
        "fp32",
    )
    assert (train.weight_decay, train.weight_decay_exempt) == (0.01, "layer_norms")
    steps = train.epochs * (20_210 // train.batch_size)
    assert steps == pytest.approx(160_000, rel=0.005)
    assert train.warmup * steps == pytest.approx(1500, rel=0.005)
    faster = 10.0 if name.endswith("paca") else 1.0
    assert (train.head_lr_scale, train.cluster_lr_scale) == (faster, faster)
    size = name.split("_")[1]
    assert (recipe.model.name, recipe.model.init) == (f"pacavit_{size}", f"timm:pacavit_{size}")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_networks_are_those_of_the_paper(name: str) -> None:
    recipe = recipes.load(name)
    num_parameters, drop_path = PUBLISHED[name]
    with torch.device("meta"):
        network = build.task(recipe, INFO).model
    assert sum(parameter.numel() for parameter in network.parameters()) == num_parameters
    assert recipe.model.drop_path == drop_path
    found = [module for module in network.modules() if isinstance(module, Clustering)]
    assert [module.num_clusters for module in found] == [200, 200, 200]


def test_what_learns_faster_with_the_paca_head() -> None:
    recipe = recipes.load("ade20k_tiny_paca")
    with torch.device("meta"):
        network = build.task(recipe, INFO).model
    optimizer = optim.create_optimizer(network, recipe.train)
    optim.set_lr(optimizer, 1.0)
    rates = {each: group["lr"] for group in optimizer.param_groups for each in group["params"]}
    for name, parameter in network.named_parameters():
        faster = name.startswith("head.") or ".clustering.to_clusters." in name
        assert rates[parameter] == (10.0 if faster else 1.0), name
