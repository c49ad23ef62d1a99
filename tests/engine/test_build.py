from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pacavit.data import ImageSet
from pacavit.engine import build, system
from pacavit.errors import RecipeError, UnknownNameError
from pacavit.recipes import Recipe

MakeRecipe = Callable[..., Recipe]


def test_models_get_their_arguments(make_recipe: MakeRecipe) -> None:
    task = build.task(make_recipe(model={"options": {"width": 5}}), 7)
    assert task.predict(torch.zeros(1, 3, 8, 8)).logits.shape == (1, 7)
    weight = task.model.get_parameter("conv.weight")
    assert weight.shape[0] == 5
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_what_a_model_does_not_know_is_refused(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match="widht"):
        build.task(make_recipe(model={"options": {"widht": 5}}), 3)
    with pytest.raises(RecipeError, match="clustering"):  # this model has none
        build.task(make_recipe(model={"clustering": "conv"}), 3)
    with pytest.raises(RecipeError, match=r"model\.options repeats clustering"):
        build.task(make_recipe(model={"clustering": "conv", "options": {"clustering": "mlp"}}), 3)
    with pytest.raises(UnknownNameError, match="did you mean 'pacavit_nano'"):
        build.task(make_recipe(model={"name": "pacavit_nono"}), 3)


def test_clustering_fields_reach_a_pacavit(make_recipe: MakeRecipe) -> None:
    fields = {"name": "pacavit_nano", "clustering": "mlp", "num_clusters": 4}
    small = build.model(make_recipe(model=fields).model, 3)
    large = build.model(make_recipe(model=fields | {"num_clusters": 8}).model, 3)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (small, large)]
    assert sizes[0] < sizes[1]


def test_loaders_of_a_recipe(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(eval_batch_size=4)
    source = build.data_source(recipe.data)
    images = build.image_set(source, "val", torch.device("cpu"))
    assert isinstance(images, ImageSet)
    loader = build.eval_loader(recipe, images, source.info)
    indices = torch.cat([batch.indices for batch in loader.epoch(0)])
    assert indices.tolist() == list(range(12))
    train = build.train_loader(recipe, images, source.info, image_size=6)
    assert next(train.epoch(0)).images.shape == (10, 3, 6, 6)


def test_devices(make_recipe: MakeRecipe) -> None:
    assert system.pick_device("cpu").type == "cpu"
    assert system.pick_device("auto").type in ("cpu", "cuda")
    for name in ("gpu", "cuda:99", "meta?"):
        with pytest.raises(RecipeError, match=r"train\.device"):
            system.pick_device(name)
