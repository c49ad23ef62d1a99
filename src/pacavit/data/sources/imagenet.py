"""ImageNet-1k: 1.28 million photographs of 1000 classes, or any subset in the same layout.

Source: O. Russakovsky et al.: "ImageNet Large Scale Visual Recognition Challenge", IJCV 2015;
https://www.image-net.org
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pydantic import PositiveInt
from timm.data import ImageNetInfo

from pacavit.data.base import DATASETS, Split
from pacavit.data.formats.files import (
    Listing,
    class_folders,
    class_names,
    fingerprint,
    list_images,
)
from pacavit.data.formats.image import MAX_PIXELS
from pacavit.data.formats.walk import Skipped
from pacavit.data.sources.listed import ListedSource
from pacavit.data.splits import named_holdout
from pacavit.errors import DataError
from pacavit.utils.text import first_few, shown

__all__ = ["ImageNet", "describe_synsets"]

_FULL_SIZES = {"train": 1_281_167, "val": 50_000}
_LAYOUT = "train/ and val/, each with one folder of images per class, named by its synset"


@DATASETS.register("imagenet")
class ImageNet(ListedSource):
    """ImageNet in torchvision's ImageFolder layout, read by the loader's workers.

    ROOT/train and ROOT/val hold one folder per synset (n01440764, ...). ImageNet's validation
    images, on which papers report scores, are the split "test" here; "val" is held out of the
    training images, so that no choice depends on the reported images.

    Args:
        root: the folder that holds train/ and val/.
        val_size: training images held out for validation, by a hash of their names.
        image_size: height and width in pixels of a batch; the crop of the task has its own size.
        max_pixels: images with more pixels are left out, like broken ones.
        classes: class names in label order, such as those of a model to evaluate; the synsets in
            ROOT must be among them. None: all synsets of ROOT/train, sorted.
        evaluated: the only split that is needed, to evaluate a trained model; set by the engine.
            "test" leaves ``val_size`` unused. None: for training.

    Attributes:
        skipped: files and folders that are not used as images.

    Raises:
        DataError: the layout is different, or ``val_size`` does not fit.
    """

    default_val_size: ClassVar[int] = 10_000

    def __init__(
        self,
        root: Path | None = None,
        *,
        val_size: int | None = None,
        image_size: PositiveInt = 224,
        max_pixels: PositiveInt = MAX_PIXELS,
        classes: tuple[str, ...] | None = None,
        evaluated: Split | None = None,
    ) -> None:
        if root is None:
            raise DataError(f"ImageNet is not downloaded; name its folder with --data: {_LAYOUT}")
        self.skipped = Skipped()
        inside = class_folders(root, self.skipped)
        for name in _FULL_SIZES:
            if name not in inside:
                raise DataError(f"{shown(root)} has no folder {name}; ImageNet is {_LAYOUT}")
        synsets = class_names(root / "train")
        if classes is None:
            names = describe_synsets(synsets)
        else:
            names = classes
            found = sorted({*synsets, *class_names(root / "val")})
            synsets = _order_synsets(root, found, classes)
        full = {name: list_images(root, root / name, synsets, self.skipped) for name in _FULL_SIZES}
        train = full["train"]
        if evaluated == "test":
            val_size = 0
        elif val_size is None:
            val_size = self.default_val_size
        kept, held = named_holdout(train.files, train.labels, val_size, "val")
        super().__init__(
            root,
            name="imagenet",
            version=_version(full),
            class_names=names,
            listings={"train": train.at(kept), "val": train.at(held), "test": full["val"]},
            folder=root,
            image_size=(image_size, image_size),
            in_memory=False,
            max_pixels=max_pixels,
        )

    @property
    def note(self) -> str | None:
        """A line on the files and folders that are skipped; None if there are none."""
        return None if self.root is None else self.skipped.describe(self.root)

    def _remedy(self, split: Split) -> str:
        return " because val_size is 0; leave it out"


def _version(full: dict[str, Listing]) -> str:
    """The version of the data; states numbers of images that are not those of ImageNet."""
    other = [
        f"{len(full[name]):,} instead of {size:,} {name} images"
        for name, size in _FULL_SIZES.items()
        if len(full[name]) != size
    ]
    return f"ImageNet with {' and '.join(other)} ({fingerprint(full)})" if other else "ImageNet-1k"


def _order_synsets(root: Path, synsets: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    """The synset of each class; the class name itself if ``synsets`` has none for it.

    Raises:
        DataError: a synset belongs to no class, or two to the same.
    """
    known, found, unknown = set(classes), dict[str, str](), list[str]()
    for synset, meaning in _meanings(synsets).items():
        # The name depends on the other classes of the model: "crane (n02012849)" of two cranes.
        names = (f"{meaning} ({synset})", meaning, synset)
        name = next((name for name in names if name in known), None)
        if name is None or name in found:
            unknown.append(synset if meaning == synset else f"{synset} ({meaning})")
        else:
            found[name] = synset
    if unknown:
        raise DataError(
            f"{shown(root)} has class folders that the training images do not have: "
            f"{first_few(unknown)}; remove them"
        )
    return tuple(found.get(name, name) for name in classes)


def describe_synsets(synsets: Sequence[str]) -> tuple[str, ...]:
    """Class names: the meaning of each synset.

    If two have the same meaning, the synset is appended; an unknown synset is its own name.
    """
    meanings = _meanings(synsets)
    counts = Counter(meanings.values())
    return tuple(
        f"{meaning} ({synset})" if counts[meaning] > 1 else meaning
        for synset, meaning in meanings.items()
    )


def _meanings(synsets: Sequence[str]) -> dict[str, str]:
    """The description of each synset; unknown ones describe themselves."""
    info = ImageNetInfo("imagenet-22k")
    known = set(info.label_names())
    return {
        name: info.label_name_to_description(name) if name in known else name for name in synsets
    }
