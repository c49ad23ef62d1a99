"""From images of any kind to the records of a task."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pacavit import recipes
from pacavit.data import DATASETS, FileImages
from pacavit.engine import LoadedModel, build, evaluate
from pacavit.engine.predictor import Predictor, decode_input
from pacavit.errors import CheckpointError, DataError
from pacavit.recipes import Recipe
from pacavit.tasks import ClassificationTask
from pacavit.tasks.classification import ImagePrediction, Predictions

MakeModel = Callable[..., LoadedModel]


class Brightness(torch.nn.Module):
    """(B, 3, H, W) -> (B, 10); class 9 for bright images, class 0 for dark ones."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((1, 2, 3))[:, None] * torch.linspace(-1, 1, 10)


@pytest.fixture
def model() -> LoadedModel:
    recipe = recipes.load("digits")
    info = DATASETS.get("digits")().info
    task = build.task(recipe, info).eval()
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


def predict_images(model: LoadedModel, paths: list[Path], top_k: int = 5) -> list[ImagePrediction]:
    """What ``pacavit.predict`` returns of a classifier."""
    assert isinstance(model.task, ClassificationTask)
    return [
        model.task.prediction(found.source, found.record, found.error, model.info, top_k)
        for found in Predictor(model)(paths)
    ]


def test_predictions_keep_their_order_over_batches_and_errors(
    model: LoadedModel, images: list[Path]
) -> None:
    predictions = predict_images(model, images, top_k=3)
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
    (prediction,) = predict_images(model, images[:1], top_k=50)
    assert len(prediction.top) == 10
    assert sum(probability for _, probability in prediction.top) == pytest.approx(1.0)


def test_no_images_no_predictions(model: LoadedModel) -> None:
    assert predict_images(model, []) == []


def test_probabilities_that_are_not_numbers_are_one_line(
    model: LoadedModel, images: list[Path]
) -> None:
    class Broken(Brightness):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * float("nan")

    model.classifier.model = Broken()
    with pytest.raises(CheckpointError, match=r"weights\.safetensors .*not numbers"):
        Predictor(model)(images[:3])


def noise(height: int = 30, width: int = 40, channels: int = 3) -> np.ndarray[Any, Any]:
    shape = (height, width, channels) if channels else (height, width)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def png(array: np.ndarray[Any, Any]) -> bytes:
    file = BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def trained(model: LoadedModel) -> LoadedModel:
    """With its network: random weights that see more than brightness."""
    torch.manual_seed(0)
    model.task.model = build.model(model.recipe.model, 10).eval()
    return model


@pytest.mark.parametrize("gray", [False, True])
def test_every_kind_of_input_gives_the_same_record(
    trained: LoadedModel, tmp_path: Path, gray: bool
) -> None:
    array = noise(channels=0 if gray else 3)
    (tmp_path / "a.png").write_bytes(png(array))
    rgb = np.stack([array] * 3, 2) if gray else array
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)
    inputs: list[Any] = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        png(array),
        array,
        rgb,
        rgb[::-1, ::-1].copy()[::-1, ::-1],  # with negative strides
        np.frombuffer(rgb.tobytes(), np.uint8).reshape(rgb.shape),  # read only
        Image.fromarray(array),
        tensor,
    ]
    predictor = Predictor(trained)
    found = predictor(inputs)
    assert [each.error for each in found] == [None] * len(inputs)
    assert [str(each.source) for each in found[:3]] == [str(tmp_path / "a.png")] * 2 + ["image 2"]
    alone = [predictor([each])[0].record for each in inputs]
    for record in [each.record for each in found]:
        assert torch.equal(record.logits, found[0].record.logits)
    for record in alone:
        assert torch.equal(record.probabilities, alone[0].probabilities)
    torch.testing.assert_close(alone[0].logits, found[0].record.logits, rtol=1e-4, atol=1e-5)
    assert float(found[0].record.probabilities.std()) > 0


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "L", "1", "CMYK"])
def test_pillow_images_are_read_as_their_files_are(
    trained: LoadedModel, tmp_path: Path, mode: str
) -> None:
    """Transparent pixels lie on white, 16 bits span 0..65535, and the camera's turn is undone."""
    if mode == "I;16":
        image = Image.fromarray(noise(channels=0).astype(np.uint16) * 200)
    else:
        image = Image.fromarray(noise(channels=4), "RGBA").convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(path, exif=exif)
    predictor = Predictor(trained)
    with Image.open(path) as opened:
        assert torch.equal(decode_input(opened), decode_input(path))
        assert tuple(decode_input(opened).shape) == (3, 40, 30)
        first, second = predictor([opened, path])
    assert torch.equal(first.record.logits, second.record.logits)


def test_a_pillow_image_whose_file_is_broken(trained: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(noise(300, 300))[:50_000])
    with Image.open(tmp_path / "a.png") as opened:
        found = Predictor(trained)([noise(), opened])
    assert found[0].error is None
    assert found[1].error is not None
    assert found[1].error.startswith("image 1 is a broken image: ")


def test_an_input_keeps_its_pixels(trained: LoadedModel) -> None:
    """Neither the caller's array nor its tensor is written to."""
    array, tensor = noise(8, 8), torch.from_numpy(noise(8, 8)).permute(2, 0, 1).contiguous()
    before = array.copy(), tensor.clone()
    Predictor(trained)([array, tensor])
    assert np.array_equal(array, before[0])
    assert torch.equal(tensor, before[1])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (noise().astype(np.float32), r"image 1 is a float32 array of shape \(30, 40, 3\)"),
        (noise(channels=4), r"image 1 is a uint8 array of shape \(30, 40, 4\)"),
        (noise()[None], r"image 1 is a uint8 array of shape \(1, 30, 40, 3\)"),
        (torch.zeros(3, 8, 8), r"image 1 is a torch.float32 tensor of shape \(3, 8, 8\)"),
        (torch.zeros(8, 8, 3, dtype=torch.uint8), r"image 1 is a torch.uint8 tensor of shape"),
        (torch.zeros(8, 8, dtype=torch.uint8), r"tensor of shape \(8, 8\); give uint8 RGB"),
        (None, "image 1 is a NoneType; give a path, the bytes of a file, an array, a PIL image or"),
        ([[1, 2], [3, 4]], "image 1 is a list; give a path"),
        (b"no image", "image 1 is not an image in a format"),
        (png(noise())[:200], "image 1 is a broken image"),
        ("nowhere.png", "there is no image file nowhere.png"),
    ],
)
def test_a_wrong_input_is_one_line_and_stops_no_other(
    trained: LoadedModel, wrong: Any, message: str
) -> None:
    good = noise()
    predictor = Predictor(trained)
    first, bad, last = predictor([good, wrong, good])
    assert bad.record is None
    assert bad.error is not None
    assert "\n" not in bad.error
    with pytest.raises(DataError, match=message):
        raise DataError(bad.error)
    assert first.error is last.error is None
    assert torch.equal(first.record.logits, last.record.logits)
    with pytest.raises(DataError, match=message):
        decode_input(wrong, "image 1")


def test_nothing_but_unreadable_images(trained: LoadedModel) -> None:
    assert [found.record for found in Predictor(trained)([b"", b"x"])] == [None, None]


def test_inputs_are_taken_as_they_are_needed(trained: LoadedModel) -> None:
    taken: list[int] = []

    def inputs() -> Any:
        for index in range(5):
            taken.append(index)
            yield noise()

    stream = Predictor(trained, batch_size=2).stream(inputs())
    next(stream)
    assert taken == [0, 1]
    names = [str(found.source) for found in stream]
    assert names == ["image 1", "image 2", "image 3", "image 4"]


def test_threads_share_a_predictor(trained: LoadedModel) -> None:
    predictor = Predictor(trained, batch_size=4)
    sizes = [(20 + number % 7, 15 + number % 5) for number in range(40)]
    inputs = [noise(*size) for size in sizes]
    expected = [predictor([each])[0].record for each in inputs]
    start = threading.Barrier(8)

    def work(thread: int) -> list[Any]:
        start.wait()
        return [predictor([each])[0].record for each in inputs[thread::8]]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(work, range(8)))
    for thread, records in enumerate(found):
        for record, right in zip(records, expected[thread::8], strict=True):
            assert torch.equal(record.logits, right.logits)


def test_prepared_images_have_placements(trained: LoadedModel) -> None:
    predictor = Predictor(trained)
    images = [decode_input(noise(30, 40)), decode_input(noise(17, 11))]
    batch = predictor.prepare(images)
    assert [placement.image_size for placement in batch.placements] == [(30, 40), (17, 11)]
    assert all(p.input_size == tuple(batch.images.shape[2:]) for p in batch.placements)
    records = predictor.records(batch)
    assert torch.equal(records[1].logits, predictor(images)[1].record.logits)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(12):
            height, width = rng.integers(9, 70, 2)
            pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    return tmp_path / "data"


# Images in memory have lost the pixels that a crop would start from.
@pytest.mark.parametrize(
    ("in_memory", "crop"), [(False, None), (True, None), (False, {"eval_part": 0.8})]
)
@pytest.mark.parametrize(("stored", "size"), [(16, None), (16, 24), (24, 12)])
def test_a_file_is_predicted_with_the_bits_of_its_evaluation(
    folder: Path, in_memory: bool, crop: dict[str, Any] | None, stored: int, size: int | None
) -> None:
    """Files have other sizes than the data set stores, and the network sees yet another."""
    options = {"image_size": stored, "in_memory": in_memory, "test_size": 10}
    recipe = recipes.parse(
        {
            "name": "test",
            "task": {"image_size": size, "crop": crop},
            "data": {
                "name": "folder",
                "root": str(folder),
                "val_size": 2,
                "num_workers": 0,
                "options": options,
            },
            "model": {"name": "tiny_net", "options": {"drop": 0.0}},
            "train": {"epochs": 1, "batch_size": 4, "eval_batch_size": 7, "lr": 0.1},
        },
        "test",
    )
    source = build.data_source(recipe)
    torch.manual_seed(0)
    task = build.task(recipe, source.info).eval()
    model = LoadedModel(task, recipe, source.info, {}, Path("made.safetensors"))
    images = source.load("test")
    seen: list[tuple[int, Tensor]] = []

    def observe(predictions: Predictions, batch: Any) -> None:
        seen.extend(zip(batch.indices.tolist(), predictions.logits, strict=True))

    loader = build.eval_loader(recipe, images, source.info)
    evaluate(model.classifier, loader, source.info.class_names, observe=observe)
    listed = build.data_source(recipe_in_files(recipe)).load("test")
    assert isinstance(listed, FileImages)
    paths = [listed.path(index) for index, _ in seen]
    assert len(paths) == 10
    found = Predictor(model, batch_size=7)(paths)
    for (_, logits), predicted in zip(seen, found, strict=True):
        assert torch.equal(predicted.record.logits, logits)
    assert len({tuple(logits.tolist()) for _, logits in seen}) == 10


def recipe_in_files(recipe: Recipe) -> Recipe:
    """The same data, whose images have paths."""
    options = {**recipe.data.options, "in_memory": False}
    data = recipe.data.model_copy(update={"options": options})
    return recipe.model_copy(update={"data": data})
