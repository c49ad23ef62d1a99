"""The first convolution as whitening filters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from pacavit.engine import build, train
from pacavit.engine.freezing import first_convolution
from pacavit.engine.whitening import check_whitening, patch_covariance, whiten, whitening_filters
from pacavit.errors import RecipeError
from pacavit.recipes import Recipe

MakeRecipe = Callable[..., Recipe]


def smooth_images(number: int) -> Tensor:
    """Images (number, 3, 16, 16) whose neighboring pixels and channels are correlated."""
    noise = torch.randn(number, 1, 20, 20) + 0.3 * torch.randn(number, 3, 20, 20)
    return nn.functional.avg_pool2d(noise, 5, stride=1)


@pytest.mark.parametrize("kernel", [2, 3])
def test_outputs_are_uncorrelated_with_variance_1(kernel: int) -> None:
    images = smooth_images(200)
    conv = nn.Conv2d(3, 2 * 3 * kernel**2, kernel, bias=False)
    filters = whitening_filters(patch_covariance(images, conv), conv)
    half = conv.out_channels // 2
    assert torch.equal(filters[half:], -filters[:half])
    conv.weight.data = filters
    outputs = conv(images).detach().double()[:, :half].transpose(0, 1).flatten(1)
    found = outputs @ outputs.T / outputs.shape[1]
    # Small eigenvalues are damped, so their variance is below 1.
    assert found.diagonal().max() < 1 + 1e-4
    assert found.diagonal()[0] == pytest.approx(1, abs=1e-2)
    torch.testing.assert_close(found, found.diagonal().diag(), atol=1e-4, rtol=0)


def test_the_covariance_is_that_of_all_patches_inside_an_image() -> None:
    images, conv = torch.randn(2, 3, 5, 4), nn.Conv2d(3, 4, 3, padding=1)
    patches = torch.stack(
        [
            images[image, :, row : row + 3, column : column + 3].flatten().double()
            for image in range(2)
            for row in range(3)
            for column in range(2)
        ]
    )
    torch.testing.assert_close(patch_covariance(images, conv), patches.T @ patches / len(patches))


def test_fewer_filters_are_those_of_the_largest_eigenvalues() -> None:
    images, conv = smooth_images(50), nn.Conv2d(3, 5, 2)
    covariance = patch_covariance(images, conv)
    filters = whitening_filters(covariance, conv).flatten(1).double()
    assert torch.equal(filters[3:], -filters[:2])
    values = torch.linalg.eigvalsh(covariance).flip(0)[:3]
    powers = (filters[:3] @ covariance * filters[:3]).sum(1)
    torch.testing.assert_close(powers, values / (values + 5e-4))
    assert (filters[:3].gather(1, filters[:3].abs().argmax(1, keepdim=True)) > 0).all()


@pytest.mark.parametrize("fraction", [0.0, 0.5, 1.0])
def test_the_filters_are_fixed_as_long_as_the_recipe_says(
    fraction: float, make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe(whitening=fraction, keep_checkpoints=3, weight_decay=0.5)
    run = train(recipe, tmp_path / "run", progress=False)
    source = build.data_source(recipe)
    model = build.model(recipe.model, 3)
    line = whiten([model], recipe, source.load("train"), source.info)
    assert line == "conv starts as 8 whitening filters of 50 training images"
    expected = first_convolution(model)[1].weight
    fixed = []
    for step in (5, 10, 15):
        folder = run / f"checkpoints/step-{step}"
        weights = load_file(folder / "model.safetensors")["conv.weight"]
        average = load_file(folder / "ema.safetensors")["conv.weight"]
        fixed.append(torch.equal(weights, expected))
        assert torch.allclose(average, expected, atol=1e-6) == fixed[-1]
    # Of three epochs, those begin with 0, 1/3 and 2/3 of the epochs done.
    assert fixed == [number < 3 * fraction for number in range(3)]


def test_networks_that_have_no_such_filters_are_refused() -> None:
    message = r"0 has 25 filters, and patches of 2 x 2 pixels give at most 24; leave it out"
    with pytest.raises(RecipeError, match=message):
        check_whitening(nn.Sequential(nn.Conv2d(3, 25, 2)))
    check_whitening(nn.Sequential(nn.Conv2d(3, 24, 2)))
    with pytest.raises(RecipeError, match="no convolution of RGB images"):
        check_whitening(nn.Sequential(nn.Linear(3, 2)))


@pytest.mark.parametrize("name", ["pacavit_nano", "pacavit_mini", "pacavit_large32", "resnet18"])
def test_networks_for_images_have_such_filters(name: str, make_recipe: MakeRecipe) -> None:
    model: dict[str, Any] = {"name": name}
    with torch.device("meta"):
        check_whitening(build.model(make_recipe(model=model).model, 10))
