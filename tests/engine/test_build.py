from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pacavit import recipes
from pacavit.data import DATASETS, Batch, DataInfo, DataSource, ImageSet
from pacavit.engine import build, system
from pacavit.engine.distributed import World
from pacavit.errors import RecipeError, UnknownNameError
from pacavit.recipes import Recipe
from pacavit.tasks import ClassificationTask
from pacavit.tasks.classification import ClassificationMetrics, Predictions

MakeRecipe = Callable[..., Recipe]
HALF = (0.5, 0.5, 0.5)
INFO = DataInfo("toy", "toy", ("a", "b", "c"), (8, 8), HALF, HALF)


def test_models_get_their_arguments(make_recipe: MakeRecipe) -> None:
    seven = replace(INFO, class_names=tuple("abcdefg"))
    task = build.task(make_recipe(model={"options": {"width": 5}}), seven)
    assert task.predict(Batch.unlabeled(torch.zeros(1, 3, 8, 8)))[0].logits.shape == (7,)
    weight = task.model.get_parameter("conv.weight")
    assert weight.shape[0] == 5
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_what_a_model_does_not_know_is_refused(make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match="widht"):
        build.task(make_recipe(model={"options": {"widht": 5}}), INFO)
    with pytest.raises(RecipeError, match="clustering"):  # this model has none
        build.task(make_recipe(model={"clustering": "conv"}), INFO)
    with pytest.raises(RecipeError, match=r"model\.options repeats clustering"):
        build.task(
            make_recipe(model={"clustering": "conv", "options": {"clustering": "mlp"}}), INFO
        )
    with pytest.raises(UnknownNameError, match="did you mean 'pacavit_nano'"):
        build.task(make_recipe(model={"name": "pacavit_nono"}), INFO)


@pytest.mark.parametrize(
    "option",
    ["pretrained", "pretrained_cfg", "checkpoint_path", "cache_dir", "features_only", "scriptable"],
)
def test_options_that_fetch_or_unpickle_are_refused(option: str, make_recipe: MakeRecipe) -> None:
    with pytest.raises(RecipeError, match=rf"model\.options may not hold {option}"):
        build.task(make_recipe(model={"options": {option: "x"}}), INFO)


@pytest.mark.parametrize(
    "model",
    [
        {"options": {"num_heads": [0, 4, 8]}},
        {"options": {"num_heads": []}},
        {"options": {"act_layer": "reluu"}},
        {"clustering": "mlp", "clustering_options": {"hidden_ratio": -1}},
    ],
)
def test_arguments_that_no_network_can_have_are_one_line(
    model: dict[str, object], make_recipe: MakeRecipe
) -> None:
    with pytest.raises(RecipeError) as caught:
        build.task(make_recipe(model={"name": "pacavit_nano", **model}), INFO)
    assert "\n" not in str(caught.value)


class Noisy(nn.Module):
    """Draws random numbers, even in evaluation mode."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


def test_check_leaves_no_trace(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    info = build.data_source(recipe).info
    task = build.task(recipe, INFO)
    task.model = nn.Sequential(Noisy(), task.model)
    task.train()
    frozen = task.model.get_submodule("1.norm").eval()
    before = {name: value.clone() for name, value in task.state_dict().items()}
    generator = torch.get_rng_state()
    build.check(task, recipe, info)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert [module for module in task.modules() if not module.training] == [frozen]


def test_check_tries_images_of_every_size_of_the_run(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    info = replace(build.data_source(recipe).info, image_size=(6, 8))
    task = build.task(recipe, INFO)
    seen: list[tuple[int, ...]] = []
    task.model.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    build.check(task, recipe, info)
    larger = recipe.task.model_copy(update={"image_size": 12})
    build.check(task, recipe.model_copy(update={"task": larger}), info)
    train = recipe.train.model_copy(update={"progressive": ((0.2, 4), (0.5, 5))})
    build.check(task, recipe.model_copy(update={"train": train}), info)
    sizes = [(6, 8), (12, 12), (6, 8), (4, 4), (5, 5)]
    assert seen == [(2, 3, *size) for size in sizes]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Conv2d(3, 3, 99), "fails on 8 x 8 images: RuntimeError"),
        (nn.Identity(), r"logits of shape \(2, 3\)"),
        (nn.MaxPool2d(2, return_indices=True), "fails on 8 x 8 images: AttributeError"),
    ],
)
def test_check_reports_a_misfit_in_one_line(
    model: nn.Module, message: str, make_recipe: MakeRecipe
) -> None:
    recipe = make_recipe()
    task = build.task(recipe, INFO)
    task.model = model
    with pytest.raises(RecipeError, match=message) as caught:
        build.check(task, recipe, build.data_source(recipe).info)
    assert "\n" not in str(caught.value)
    assert task.training


def test_options_reach_the_data_set(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = DATASETS.get("tiny-stripes")

    class Variants(plain):  # type: ignore[misc, valid-type]
        def __init__(self, root: object = None, *, val_size: int | None = None, tint: int = 0):
            super().__init__(root, val_size=val_size)
            self.tint = tint

    kinds: dict[str, type[DataSource]] = {**DATASETS._entries, "variants": Variants}
    monkeypatch.setattr(DATASETS, "_entries", kinds)

    def recipe(**options: object) -> Recipe:
        changed = {"name": "variants", "val_size": 5, "options": options, "root": Path("here")}
        return make_recipe().model_copy(
            update={"data": make_recipe().data.model_copy(update=changed)}
        )

    source = build.data_source(recipe(tint=3))
    assert vars(source) == {"root": Path("here"), "val_size": 5, "tint": 3}
    assert build.data_source(recipe(tint=3), Path("there")).root == Path("there")
    with pytest.raises(UnknownNameError, match="did you mean 'tint'"):
        build.data_source(recipe(tnt=3))


def test_a_data_set_without_targets_for_the_task_is_refused(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClassificationTask, "target", "boxes")
    message = r"'tiny-stripes' has no targets for the task 'classification'; choose another data"
    with pytest.raises(RecipeError, match=message) as caught:
        build.data_source(make_recipe())
    assert "\n" not in str(caught.value)


def test_a_data_set_with_several_targets_gets_the_one_of_the_task(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = DATASETS.get("tiny-stripes")

    class Several(plain):  # type: ignore[misc, valid-type]
        targets = ("labels", "label")

        def __init__(
            self, root: object = None, *, val_size: int | None = None, target: str = "labels"
        ):
            super().__init__(root, val_size=val_size)
            self.target = target

    kinds: dict[str, type[DataSource]] = {**DATASETS._entries, "tiny-stripes": Several}
    monkeypatch.setattr(DATASETS, "_entries", kinds)
    assert vars(build.data_source(make_recipe()))["target"] == "label"


def test_clustering_fields_reach_a_pacavit(make_recipe: MakeRecipe) -> None:
    fields = {"name": "pacavit_nano", "clustering": "mlp", "num_clusters": 4}
    small = build.model(make_recipe(model=fields).model, 3)
    large = build.model(make_recipe(model=fields | {"num_clusters": 8}).model, 3)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (small, large)]
    assert sizes[0] < sizes[1]


def test_loaders_of_a_recipe(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(eval_batch_size=4)
    source = build.data_source(recipe)
    images = build.image_set(source, "val", torch.device("cpu"))
    assert isinstance(images, ImageSet)
    loader = build.eval_loader(recipe, images, source.info)
    indices = torch.cat([batch.indices for batch in loader.epoch(0)])
    assert indices.tolist() == list(range(12))
    train = build.train_loader(recipe, images, source.info, image_size=6)
    assert next(train.epoch(0)).images.shape == (10, 3, 6, 6)


def test_devices(make_recipe: MakeRecipe) -> None:
    assert system.pick_device("cpu").type == "cpu"
    assert system.pick_device("auto").type in ("cpu", "cuda", "mps")
    for name in ("gpu", "cuda:99", "meta?"):
        with pytest.raises(RecipeError, match=r"train\.device"):
            system.pick_device(name)


def folder_source(folder: Path, *changes: str) -> DataSource:
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(8):
            Image.new("RGB", (40, 50)).save(folder / name / f"{number}.png")
    return build.data_source(recipes.load("folder_nano", changes), folder)


def test_the_size_of_the_network_is_that_of_the_stored_images(tmp_path: Path) -> None:
    assert folder_source(tmp_path).info.image_size == (64, 64)
    source = folder_source(tmp_path, "task.image_size=48")
    assert source.info.image_size == (48, 48)
    assert source.load("train")[0].image.shape == (3, 48, 48)
    trained = replace(source.info, image_size=(24, 24))
    again = build.data_source(recipes.load("folder_nano"), tmp_path, trained)
    assert again.info.image_size == (24, 24)


def test_enlarging_is_told(tmp_path: Path) -> None:
    changes = ["data.options.image_size=24"]
    recipe = recipes.load("folder_nano", changes)
    line = build.enlarged(recipe, folder_source(tmp_path, *changes).info)
    assert line == (
        "images are stored with 24 x 24 pixels and enlarged to 64 x 64; leave "
        "data.options.image_size out to store them in full size"
    )
    recipe = recipes.load("folder_nano")
    assert build.enlarged(recipe, folder_source(tmp_path).info) is None


def test_whole_images_for_a_task_that_crops(tmp_path: Path) -> None:
    crop = "task.crop.scale=[0.5, 1.0]"
    assert folder_source(tmp_path, crop).load("train").in_files
    changes = [crop, "data.options.in_memory=true"]
    recipe, source = recipes.load("folder_nano", changes), folder_source(tmp_path, *changes)
    with pytest.raises(RecipeError, match=r"task\.crop needs whole images, and data\.options\.in_"):
        build.check(build.task(recipe, source.info), recipe, source.info)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_prefers_gpus(
    cuda: bool, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert system.pick_device("auto") == torch.device(expected)
    without_apple = "cuda" if cuda else "cpu"
    assert system.pick_device("auto", float64=True) == torch.device(without_apple)


def test_several_processes_do_not_share_the_gpu_of_apple(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert World(rank=1, size=2, local_rank=1).device("auto").type == "cpu"


def test_metrics_do_without_float64_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(20, 4)
    labels = torch.arange(20) % 4
    found = {}
    for kind in ("cpu", "mps"):
        metrics = ClassificationMetrics(4)
        monkeypatch.setattr(metrics, "to", lambda device, metrics=metrics: metrics)
        system.put_metrics(metrics, torch.device(kind))
        metrics.update(Predictions(logits, logits.softmax(-1)), labels)
        states = [state for metric in metrics.values() for state in metric.metric_state.values()]
        doubles = [isinstance(s, torch.Tensor) and s.dtype == torch.float64 for s in states]
        assert any(doubles) == (kind == "cpu")
        found[kind] = metrics.compute()
    for name, value in found["cpu"].items():
        torch.testing.assert_close(value.float(), found["mps"][name].float())
