"""ImageNet-1k: 1.28 million photographs of 1000 classes, or any part of it in the same layout.

Source: O. Russakovsky et al.: "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015;
https://www.image-net.org
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import PositiveInt
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, ImageNetInfo

from pacavit.data.base import DATASETS, DataInfo, DataSource, Split
from pacavit.data.formats.files import FileImages, Listing, class_names, fingerprint, list_images
from pacavit.data.formats.image import MAX_PIXELS
from pacavit.data.splits import named_holdout
from pacavit.errors import DataError

__all__ = ["ImageNet", "describe_synsets"]

_OFFICIAL = {"train": 1_281_167, "val": 50_000}
_LAYOUT = "train/ and val/, each with one folder of images a class, named by its synset"


@DATASETS.register("imagenet")
class ImageNet(DataSource):
    """ImageNet in torchvision's ImageFolder layout, read by the loader's workers.

    ROOT/train and ROOT/val hold one folder a synset (n01440764, ...). The official validation
    images, whose scores papers report, are the split "test" here; "val" is held out of the
    training images, so that nothing is chosen by what is reported.

    Args:
        root: the folder that holds train/ and val/.
        val_size: training images held out for validation, by their names.
        image_size: height and width in pixels of a batch; the task's crop has its own.
        max_pixels: images with more pixels are left out, as broken ones are.

    Raises:
        DataError: the layout is another one, or ``val_size`` does not fit.
    """

    default_val_size: ClassVar[int] = 10_000

    def __init__(
        self,
        root: Path | None = None,
        *,
        val_size: int | None = None,
        image_size: PositiveInt = 224,
        max_pixels: PositiveInt = MAX_PIXELS,
    ) -> None:
        super().__init__(root, val_size=val_size)
        if root is None:
            raise DataError(f"ImageNet is not downloaded; name its folder with --data: {_LAYOUT}")
        inside = class_names(root)
        for name in _OFFICIAL:
            if name not in inside:
                raise DataError(f"{root} has no folder {name}; ImageNet is {_LAYOUT}")
        synsets = class_names(root / "train")
        self._class_names = describe_synsets(synsets)
        full = {name: list_images(root, root / name, synsets) for name in _OFFICIAL}
        self._copy = _copy_name(full)
        train = full["train"]
        kept, held = named_holdout(train.files, train.labels, self.val_size, "val")
        self._listings: dict[Split, Listing] = {
            "train": train.at(kept),
            "val": train.at(held),
            "test": full["val"],
        }
        self.image_size, self.max_pixels = (image_size, image_size), max_pixels
        self._loaded: dict[Split, FileImages] = {}

    @property
    def info(self) -> DataInfo:
        """Facts of the data; ``version`` says when images are missing."""
        return DataInfo(
            name="imagenet",
            version=self._copy,
            class_names=self._class_names,
            image_size=self.image_size,
            mean=IMAGENET_DEFAULT_MEAN,
            std=IMAGENET_DEFAULT_STD,
        )

    def load(self, split: Split) -> FileImages:
        """The files of one split; nothing is read yet."""
        if len(self._listings[split]) == 0:
            raise DataError("imagenet has no validation images because val_size is 0")
        if split not in self._loaded:
            assert self.root is not None
            self._loaded[split] = FileImages(
                self.root, self._listings[split], self.image_size, max_pixels=self.max_pixels
            )
        return self._loaded[split]


def _copy_name(full: dict[str, Listing]) -> str:
    """Numbers on a part of the images must not pass for numbers on ImageNet."""
    other = [
        f"{len(full[name]):,} instead of {official:,} {name} images"
        for name, official in _OFFICIAL.items()
        if len(full[name]) != official
    ]
    return f"ImageNet with {' and '.join(other)} ({fingerprint(full)})" if other else "ImageNet-1k"


def describe_synsets(synsets: Sequence[str]) -> tuple[str, ...]:
    """Class names: what synsets mean; the synset stays where two mean the same or none is known."""
    info = ImageNetInfo("imagenet-22k")
    known = set(info.label_names())
    names = [info.label_name_to_description(name) if name in known else name for name in synsets]
    counts = Counter(names)
    return tuple(
        f"{name} ({synset})" if counts[name] > 1 else name
        for name, synset in zip(names, synsets, strict=True)
    )
