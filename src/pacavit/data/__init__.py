"""Data sets, preprocessing and batches.

Importing this package registers the data sources.
"""

from pacavit.data.base import (
    DATASETS,
    IGNORE_INDEX,
    SPLITS,
    Batch,
    DataInfo,
    DataSource,
    ImageSet,
    LabeledImages,
    MaskInfo,
    MemoryImages,
    ObjectInfo,
    Sample,
    Split,
    TargetKind,
    check_split,
)
from pacavit.data.formats.files import FileImages, describe_broken
from pacavit.data.formats.image import crop_center, decode_image, fit_image, read_image
from pacavit.data.formats.mask_files import MaskFiles
from pacavit.data.formats.masks import read_mask
from pacavit.data.formats.object_files import ObjectFiles
from pacavit.data.formats.rle import Rle
from pacavit.data.loader import Loader
from pacavit.data.masks import MaskedImages, MaskStatistics, MemoryMasks
from pacavit.data.objects import MemoryObjects, ObjectImages, Objects, ObjectStatistics
from pacavit.data.options import check_options
from pacavit.data.palette import class_colors
from pacavit.data.placement import Placement, Region
from pacavit.data.preprocess import Preprocess, mean_color, normalize, pad_image, pad_images
from pacavit.data.random import SampleRandom, epoch_order, seeded_generators
from pacavit.data.sources.ade20k import Ade20k
from pacavit.data.sources.cifar10 import Cifar10
from pacavit.data.sources.coco import Coco
from pacavit.data.sources.csv import CsvLabels
from pacavit.data.sources.digits import Digits
from pacavit.data.sources.folder import Folder
from pacavit.data.sources.imagenet import ImageNet
from pacavit.data.sources.masks import Masks
from pacavit.data.sources.parquet import Parquet
from pacavit.data.sources.shapes import Scenes, Shapes, render_scenes
from pacavit.data.sources.voc import Voc
from pacavit.data.sources.webdataset import WebDataset
from pacavit.data.sources.yolo import Yolo
from pacavit.data.splits import hold_out_validation, stratified_holdout
from pacavit.data.workers import available_cores
from pacavit.utils.deprecation import renamed

__all__ = [
    "DATASETS",
    "IGNORE_INDEX",
    "SPLITS",
    "Ade20k",
    "Batch",
    "Cifar10",
    "Coco",
    "CsvLabels",
    "DataInfo",
    "DataSource",
    "Digits",
    "FileImages",
    "Folder",
    "ImageNet",
    "ImageSet",
    "LabeledImages",
    "Loader",
    "MaskFiles",
    "MaskInfo",
    "MaskStatistics",
    "MaskedImages",
    "Masks",
    "MemoryImages",
    "MemoryMasks",
    "MemoryObjects",
    "ObjectFiles",
    "ObjectImages",
    "ObjectInfo",
    "ObjectStatistics",
    "Objects",
    "Parquet",
    "Placement",
    "Preprocess",
    "Region",
    "Rle",
    "Sample",
    "SampleRandom",
    "Scenes",
    "Shapes",
    "Split",
    "TargetKind",
    "Voc",
    "WebDataset",
    "Yolo",
    "available_cores",
    "check_options",
    "check_split",
    "class_colors",
    "crop_center",
    "decode_image",
    "describe_broken",
    "epoch_order",
    "fit_image",
    "hold_out_validation",
    "mean_color",
    "normalize",
    "pad_image",
    "pad_images",
    "read_image",
    "read_mask",
    "render_scenes",
    "seeded_generators",
    "stratified_holdout",
]

crop_centre = renamed(crop_center, "crop_centre")
