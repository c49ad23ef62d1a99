"""What a recipe may ask of training beside the loop itself."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pacavit.engine import build, load_model, train
from pacavit.engine.run.log import read_metrics
from pacavit.errors import CheckpointError, Interrupted
from pacavit.recipes import Recipe
from pacavit.tasks import ClassificationTask
from pacavit.tasks.classification.config import AugmentConfig, ClassificationConfig, MixConfig

MakeRecipe = Callable[..., Recipe]
StopAt = Callable[[int], AbstractContextManager[None]]


def augmented(recipe: Recipe) -> Recipe:
    """The same run with everything that changes images."""
    task = ClassificationConfig(
        augment=AugmentConfig(
            flip="random", shift=1, rand_augment="rand-m9-n2-mstd0.5-inc1", random_erasing=0.25
        ),
        mix=MixConfig(mixup=0.8, cutmix=1.0, until=0.7),
    )
    return recipe.model_copy(update={"task": task})


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every batch that a training step gets."""
    batches: list[Any] = []
    forward = ClassificationTask.forward

    def noting(self: ClassificationTask, batch: Any) -> dict[str, Tensor]:
        batches.append(batch)
        return forward(self, batch)

    monkeypatch.setattr(ClassificationTask, "forward", noting)
    return batches


def test_augmented_and_mixed_runs_resume_to_the_same_bits(
    make_recipe: MakeRecipe, stop_at: StopAt, tmp_path: Path
) -> None:
    recipe = augmented(make_recipe(precision="bf16"))
    whole = train(recipe, tmp_path / "whole", progress=False)
    with stop_at(7), pytest.raises(Interrupted):
        train(recipe, tmp_path / "parts", progress=False)
    torch.manual_seed(1234)
    parts = train(recipe, tmp_path / "parts", resume=True, progress=False)
    one, other = (load_file(run / "weights.safetensors") for run in (whole, parts))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_images_are_mixed_until_the_given_epoch_and_never_in_evaluation(
    make_recipe: MakeRecipe, tmp_path: Path, seen: list[Any]
) -> None:
    out = train(augmented(make_recipe(batch_size=25)), tmp_path / "run", progress=False)
    # 0.7 of three epochs are over with the third, of two steps each.
    assert [batch.targets.ndim for batch in seen] == [2, 2, 2, 2, 2, 2]
    seen.clear()
    train(augmented(make_recipe(epochs=4, batch_size=25)), tmp_path / "four", progress=False)
    assert [batch.targets.ndim for batch in seen] == [2, 2, 2, 2, 2, 2, 1, 1]
    assert all(0 <= row["val_accuracy"] <= 1 for row in read_metrics(out))


def test_networks_see_channels_last_images_and_weights(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def checked(self: nn.Conv2d, x: Tensor) -> Tensor:
        for tensor in (x, self.weight) if self.training else ():
            assert tensor.is_contiguous(memory_format=torch.channels_last)
            assert not tensor.is_contiguous()
        return self._conv_forward(x, self.weight, self.bias)

    monkeypatch.setattr(nn.Conv2d, "forward", checked)
    for name, recipe in (("plain", make_recipe(epochs=1)), ("mixed", augmented(make_recipe()))):
        train(recipe, tmp_path / name, progress=False)


def test_a_compiled_run_writes_the_names_of_the_model(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(make_recipe(epochs=1), tmp_path / "plain", progress=False)
    # The tracing that wraps the task is torch's; generating machine code would take a minute.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    recipe = make_recipe(epochs=1, compile=True)
    out = train(recipe, tmp_path / "compiled", progress=False)
    for name in ("weights", "checkpoints/step-5/model", "checkpoints/step-5/ema"):
        expected, found = (load_file(run / f"{name}.safetensors") for run in (plain, out))
        assert found.keys() == expected.keys()
        for key in expected:
            torch.testing.assert_close(found[key], expected[key])


SMALL = {"embed_dims": [16, 16, 32], "num_heads": [2, 2, 2], "stem_dims": [8, 8]}
NANO = {"name": "pacavit_nano", "num_clusters": [4, 2, 0], "options": SMALL}


def test_a_run_starts_from_trained_weights(
    make_recipe: MakeRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = train(make_recipe(model=NANO), tmp_path / "base", progress=False)
    other = NANO | {"num_clusters": [4, 3, 0], "init": str(base)}
    # So low a rate leaves the weights where they start.
    recipe = make_recipe(model=other, epochs=1, lr=1e-12, weight_decay=0.0, ema=None)
    out = train(recipe, tmp_path / "tuned")
    told = capsys.readouterr().out
    assert f"started from {base / 'weights.safetensors'}, trained on made by the tests" in told
    assert "newly initialized: stages.1.blocks.0.clustering.to_clusters\n" in told
    start, tuned = (load_model(run).task.model for run in (base, out))
    changed = []
    for (name, was), now in zip(start.named_parameters(), tuned.parameters(), strict=True):
        if was.shape != now.shape or not torch.allclose(was, now, atol=1e-9):
            changed.append(name)
    assert changed == ["stages.1.blocks.0.clustering.to_clusters.weight"]
    assert load_model(out / "weights.safetensors").recipe.model.init is None
    assert str(base).encode() not in (out / "weights.safetensors").read_bytes()


def test_resuming_does_not_need_the_weights_it_started_from(
    make_recipe: MakeRecipe, stop_at: StopAt, tmp_path: Path
) -> None:
    base = train(make_recipe(epochs=1), tmp_path / "base", progress=False)
    recipe = make_recipe(model={"init": str(base)})
    whole = train(recipe, tmp_path / "whole", progress=False)
    with stop_at(7), pytest.raises(Interrupted):
        train(recipe, tmp_path / "parts", progress=False)
    shutil.rmtree(base)
    parts = train(recipe, tmp_path / "parts", resume=True, progress=False)
    files = [run / "weights.safetensors" for run in (whole, parts)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_weights_that_do_not_fit_are_refused_before_the_folder_is_made(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    base = train(make_recipe(epochs=1), tmp_path / "base", progress=False)
    recipe = make_recipe(model={"options": {"width": 9}, "init": str(base)})
    with pytest.raises(CheckpointError, match=r"model\.init: .* does not fit the model: conv"):
        train(recipe, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_init_is_no_argument_of_the_model(make_recipe: MakeRecipe) -> None:
    build.model(make_recipe(model={"init": "nowhere"}).model, 3)
