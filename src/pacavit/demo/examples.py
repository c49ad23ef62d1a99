"""Images to try the demo with."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_sample_image

from pacavit.data import DATASETS

__all__ = ["example_images"]

_EMBEDDED = ("digits", "shapes")  # data sets that need no files
_NUMBER = 6
_DRAWN = ("bird", "ship", "airplane", "automobile", "truck")


def example_images(folder: Path, dataset: str) -> list[Path]:
    """Write a few images into a folder, fitting for models of a data set.

    Those of the data set if it needs no files. For all others five pictures that were drawn for
    this package (``examples/draw_demo_pictures.py``), and a photograph of what is no class of
    CIFAR-10, which scikit-learn brings: by danielbuechele, CC BY 2.0.

    Args:
        folder: where they go.
        dataset: registered name.
    """
    if dataset in _EMBEDDED:
        images = DATASETS.create(dataset, options={}).load("val")
        files = [folder / f"{dataset}-{index}.png" for index in range(_NUMBER)]
        for index, file in enumerate(files):
            picture = images[index].image.permute(1, 2, 0).contiguous().numpy()
            Image.fromarray(picture).save(file)
        return files
    files = []
    for name in _DRAWN:
        drawn = resources.files("pacavit.demo") / "pictures" / f"{name}.jpg"
        files.append(folder / drawn.name)
        files[-1].write_bytes(drawn.read_bytes())
    files.append(folder / "photograph.jpg")
    Image.fromarray(load_sample_image("china.jpg")).save(files[-1], quality=90)
    return files
