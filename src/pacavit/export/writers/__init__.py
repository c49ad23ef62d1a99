"""Formats of exported models. Importing this package registers them."""

from pacavit.export.writers.base import WRITERS, Job, Writer
from pacavit.export.writers.onnx import OnnxWriter
from pacavit.export.writers.openvino import OpenvinoWriter
from pacavit.export.writers.pt2 import Pt2Writer
from pacavit.export.writers.triton import TritonWriter

__all__ = [
    "WRITERS",
    "Job",
    "OnnxWriter",
    "OpenvinoWriter",
    "Pt2Writer",
    "TritonWriter",
    "Writer",
]
