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
    check_split,
)
from pacavit.data.formats.files import FileImages, describe_broken
from pacavit.data.formats.image import crop_centre, decode_image, fit_image, read_image
from pacavit.data.loader import BatchTransform, Framing, Loader, Transform
from pacavit.data.options import check_options
from pacavit.data.random import SampleRandom, epoch_order, lent_generators
from pacavit.data.sources.cifar10 import Cifar10
from pacavit.data.sources.digits import Digits
from pacavit.data.sources.folder import Folder
from pacavit.data.sources.imagenet import ImageNet
from pacavit.data.sources.shapes import Scenes, Shapes, render_scenes
from pacavit.data.splits import hold_out_validation, stratified_holdout
from pacavit.data.workers import available_cores

__all__ = [
    "DATASETS",
    "SPLITS",
    "Batch",
    "BatchTransform",
    "Cifar10",
    "DataInfo",
    "DataSource",
    "Digits",
    "FileImages",
    "Folder",
    "Framing",
    "ImageNet",
    "ImageSet",
    "Loader",
    "MemoryImages",
    "SampleRandom",
    "Scenes",
    "Shapes",
    "Split",
    "Transform",
    "available_cores",
    "check_options",
    "check_split",
    "crop_centre",
    "decode_image",
    "describe_broken",
    "epoch_order",
    "fit_image",
    "hold_out_validation",
    "lent_generators",
    "read_image",
    "render_scenes",
    "stratified_holdout",
]
