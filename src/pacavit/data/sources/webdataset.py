"""Labeled images in tar shards, as WebDataset writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pydantic import NonNegativeInt, PositiveInt

from pacavit.data.base import DATASETS, Split
from pacavit.data.formats.image import MAX_PIXELS
from pacavit.data.formats.shards import RowListing, find_split_shards, read_names
from pacavit.data.formats.tar_shards import TarRows, check_shard_list, read_tar_index
from pacavit.data.sources.sharded import ShardedSource
from pacavit.errors import DataError

__all__ = ["WebDataset"]


@DATASETS.register("webdataset")
class WebDataset(ShardedSource):
    """Tar shards of any number of images, in the layout of WebDataset, read at random.

    ROOT holds shards such as ``train-000000.tar``, and perhaps ``validation-*.tar`` and
    ``test-*.tar``. The files of a sample follow each other and have one name up to the first dot:
    an image (``.jpg``, ``.png``, ...), and its label as a number in ``.cls`` or as "label" in
    ``.json``. Images of splits without shards are held out of the training images, as by the
    source ``folder``.

    The first use reads the headers of all files and stores the place of each image in
    ROOT/pacavit-index.npz; it is made anew when a shard has changed. Lists of shards that
    ``widsindex`` has made (``*.json`` in ROOT) are compared with the shards. The reader of the
    package ``wids`` is not used, because its index is a pickle, which could run code, and has no
    labels: splits and balanced classes would need a pass over all shards before each run.

    Args:
        root: the folder; or a pattern of names in it, ``folder/train-*.tar``.
        val_size: images held out for validation; None: about 15 % if no shards are for it.
        test_size: images held out for testing; None: about 15 % if no shard has a split.
        val_as_test: the stored validation images are the split "test", and "val" is held out of
            the training images: for data whose own test images have no labels, such as ImageNet.
        names: file with the class names in label order, one a line. None: ROOT/classes.txt, or the
            numbers of the labels.
        image_size: height and width in pixels of a batch; the crop of a task has its own size.
        max_pixels: images with more pixels are left out, like broken ones.
        classes: class names in label order, such as those of a model to evaluate; the data may
            contain only these. None: the stored ones.
        evaluated: the only split that is needed, to evaluate a trained model; set by the engine.

    Raises:
        DataError: shards are missing or broken, or labels do not fit.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        val_size: int | None = None,
        test_size: NonNegativeInt | None = None,
        val_as_test: bool = False,
        names: Path | None = None,
        image_size: PositiveInt = 224,
        max_pixels: PositiveInt = MAX_PIXELS,
        classes: tuple[str, ...] | None = None,
        evaluated: Split | None = None,
    ) -> None:
        if root is None:
            raise DataError("a folder of tar files is needed: name it with --data ROOT")
        shards = find_split_shards(root, ".tar")
        files = [file for group in shards.values() for file in group]
        folder = files[0].parent
        index, line = read_tar_index(files)
        check_shard_list(folder, files, index)
        ends = np.cumsum([len(group) for group in shards.values()])
        listings = {}
        for split, end in zip(shards, ends, strict=True):
            first, last = np.searchsorted(index.shards, [end - len(shards[split]), end])
            keys = np.array(
                [
                    f"{files[shard].name}/".encode() + key
                    for shard, key in zip(
                        index.shards[first:last], index.keys[first:last].tolist(), strict=True
                    )
                ],
                np.bytes_,
            )
            labels = torch.from_numpy(index.labels[first:last].copy())
            listings[split] = RowListing(keys, labels, torch.arange(int(first), int(last)))
        super().__init__(
            root,
            name="webdataset",
            images=TarRows(files, index),
            listings=listings,
            names=read_names(folder, names),
            files=files,
            classes=classes,
            val_size=val_size,
            test_size=test_size,
            val_as_test=val_as_test,
            evaluated=evaluated,
            image_size=image_size,
            max_pixels=max_pixels,
        )
        if line is not None:
            self._notes.append(line)
