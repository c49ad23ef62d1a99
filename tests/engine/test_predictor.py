"""From image files to named classes."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from pacavit import recipes
from pacavit.data import DATASETS
from pacavit.engine import LoadedModel, build
from pacavit.engine.predictor import predict_images
from pacavit.errors import CheckpointError

CPU = torch.device("cpu")


class Brightness(torch.nn.Module):
    """(B, 3, H, W) -> (B, 10); class 9 for bright images, class 0 for dark ones."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3))[:, None] * torch.linspace(-1, 1, 10)


@pytest.fixture
def model() -> LoadedModel:
    recipe = recipes.load("digits")
    info = DATASETS.get("digits")().info
    task = build.task(recipe, 10).eval()
    task.model = Brightness()
    return LoadedModel(task, recipe, info, {}, Path("weights.safetensors"))


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """White and black pictures by turns, of different sizes, with a broken file among them."""
    paths = []
    for index in range(70):
        path = tmp_path / f"{index:02}.png"
        Image.new("L", (20 + index, 30), 255 * (index % 2)).save(path)
        paths.append(path)
    paths[40].write_text("broken")
    return paths


def test_answers_keep_their_order_over_batches_and_errors(
    model: LoadedModel, images: list[Path]
) -> None:
    predictions = predict_images(model, images, top_k=3, device=CPU)
    assert [prediction.path for prediction in predictions] == images
    for index, prediction in enumerate(predictions):
        if index == 40:
            assert prediction.top == ()
            assert prediction.error is not None
            assert str(images[40]) in prediction.error
        else:
            assert prediction.error is None
            assert len(prediction.top) == 3
            assert prediction.top[0].name == ("9" if index % 2 else "0")


def test_all_classes_when_there_are_fewer_than_asked(
    model: LoadedModel, images: list[Path]
) -> None:
    (prediction,) = predict_images(model, images[:1], top_k=50, device=CPU)
    assert len(prediction.top) == 10
    assert sum(probability for _, probability in prediction.top) == pytest.approx(1.0)


def test_no_images_no_answers(model: LoadedModel) -> None:
    assert predict_images(model, [], device=CPU) == []


def test_probabilities_that_are_not_numbers_are_one_line(
    model: LoadedModel, images: list[Path]
) -> None:
    class Broken(Brightness):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * float("nan")

    model.classifier.model = Broken()
    with pytest.raises(CheckpointError, match=r"weights\.safetensors .*not numbers"):
        predict_images(model, images[:3], device=CPU)
