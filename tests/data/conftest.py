"""Folders of small images in class folders, and loaders with a preprocess made of functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from pacavit.data import (
    Batch,
    ImageSet,
    Loader,
    Placement,
    Preprocess,
    Region,
    Sample,
    SampleRandom,
    fit_image,
)

MakeFolder = Callable[..., Path]
MakeLoader = Callable[..., Loader]


class FunctionPreprocess(Preprocess):
    """Functions for one image and for all of a batch; without ``crop`` images become 8 x 8."""

    def __init__(
        self,
        transform: Callable[[Tensor, SampleRandom], Tensor],
        crop: Callable[[Tensor, SampleRandom], Tensor] | None = None,
        change: Callable[[Batch, SampleRandom], Batch] | None = None,
        unit: int = 1,
    ) -> None:
        self.transform, self.crop, self.change, self.unit = transform, crop, change, unit
        self.per_sample = crop is not None

    def sample(self, sample: Sample, random: SampleRandom) -> tuple[Sample, Placement]:
        size = sample.image.shape[1], sample.image.shape[2]
        if self.crop is None:
            image = fit_image(sample.image, (8, 8))
        else:
            image = self.crop(sample.image, random)
        whole = Region(0, 0, *size)
        return replace(sample, image=image), Placement(size, whole, (8, 8))

    def batch(self, batch: Batch, random: SampleRandom) -> Batch:
        batch = replace(batch, images=self.transform(batch.images, random))
        return batch if self.change is None else self.change(batch, random)


@pytest.fixture
def make_loader() -> MakeLoader:
    """A loader whose preprocess calls functions: ``transform``, and maybe ``crop``, ``change``."""

    def make(
        images: ImageSet,
        batch_size: int,
        transform: Callable[[Tensor, SampleRandom], Tensor],
        *,
        crop: Callable[[Tensor, SampleRandom], Tensor] | None = None,
        change: Callable[[Batch, SampleRandom], Batch] | None = None,
        unit: int = 1,
        **options: Any,
    ) -> Loader:
        preprocess = FunctionPreprocess(transform, crop, change, unit)
        return Loader(images, batch_size, preprocess, **options)

    return make


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Write noise images of differing sizes, brighter class by class, into folder/CLASS/."""

    def make(folder: str = "images", classes: str = "ant bee", num: int = 6) -> Path:
        rng = np.random.default_rng(0)
        for label, name in enumerate(classes.split()):
            (tmp_path / folder / name).mkdir(parents=True)
            for number in range(num):
                height, width = rng.integers(9, 24, 2)
                low = 60 * label
                pixels = rng.integers(low, low + 50, (height, width, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / name / f"{number}.png")
        return tmp_path / folder

    return make
