"""Data sets, and what turns them into batches.

Importing this package registers the data sources.
"""

from pacavit.data.base import (
    DATASETS,
    SPLITS,
    Batch,
    DataInfo,
    DataSource,
    ImageSet,
    MemoryImages,
    Split,
)
from pacavit.data.cifar10 import Cifar10
from pacavit.data.digits import Digits
from pacavit.data.image import decode_image, read_image
from pacavit.data.loader import BatchTransform, Loader, Transform
from pacavit.data.randomness import SampleRandom, epoch_order, lent_generators
from pacavit.data.splits import hold_out_validation, stratified_holdout

__all__ = [
    "DATASETS",
    "SPLITS",
    "Batch",
    "BatchTransform",
    "Cifar10",
    "DataInfo",
    "DataSource",
    "Digits",
    "ImageSet",
    "Loader",
    "MemoryImages",
    "SampleRandom",
    "Split",
    "Transform",
    "decode_image",
    "epoch_order",
    "hold_out_validation",
    "lent_generators",
    "read_image",
    "stratified_holdout",
]
