"""Example images for the demo."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_sample_image

from pacavit.data import DATASETS
from pacavit.engine import LoadedModel, build
from pacavit.errors import PacavitError
from pacavit.utils.pictures import png_bytes

__all__ = ["example_images", "own_images"]

_DENSE = ("mask", "boxes", "instances")  # targets of tasks for which drawings are no examples
_EMBEDDED = ("digits", "shapes")  # data sets that need no files
_NUMBER = 6
_DRAWN = ("bird", "ship", "airplane", "automobile", "truck")


def example_images(folder: Path, dataset: str) -> list[Path]:
    """Write a few example images for models of a data set into a folder.

    Images of the data set if it needs no files. Otherwise five pictures drawn for this package
    (``examples/draw_demo_pictures.py``), and a photograph from scikit-learn that shows no class of
    CIFAR-10 (by danielbuechele, CC BY 2.0).

    Args:
        folder: where to write.
        dataset: registered name of the data set.

    Returns:
        The files.
    """
    if dataset in _EMBEDDED:
        images = DATASETS.create(dataset, options={}).load("val")
        files = [folder / f"{dataset}-{index}.png" for index in range(_NUMBER)]
        for index, file in enumerate(files):
            file.write_bytes(png_bytes(images[index].image))
        return files
    files = []
    for name in _DRAWN:
        drawn = resources.files("pacavit.demo") / "pictures" / f"{name}.jpg"
        files.append(folder / drawn.name)
        files[-1].write_bytes(drawn.read_bytes())
    files.append(folder / "photograph.jpg")
    Image.fromarray(load_sample_image("china.jpg")).save(files[-1], quality=90)
    return files


def own_images(folder: Path, model: LoadedModel) -> list[Path]:
    """Write a few validation images of the data that a model of a dense task was trained on.

    Args:
        folder: where to write.
        model: of a run, whose recipe names the folder of the data.

    Returns:
        The files; none for other tasks, for data sets without files, and if the data are missing.
    """
    if model.task.target not in _DENSE or model.info.name in _EMBEDDED:
        return []
    try:
        images = build.data_source(model.recipe, None, model.info).load("val")
        positions = [index * len(images) // _NUMBER for index in range(_NUMBER)]
        pictures = {index: images[index].image for index in positions}
    except PacavitError:
        return []
    files = [folder / f"{model.info.name}-{index}.png" for index in pictures]
    for file, picture in zip(files, pictures.values(), strict=True):
        file.write_bytes(png_bytes(picture))
    return files
