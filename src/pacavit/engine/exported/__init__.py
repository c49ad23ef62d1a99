"""Use files that ``pacavit export`` wrote; importing this package registers their readers."""

from pacavit.engine.exported.base import READERS, FileEngine, Reader
from pacavit.engine.exported.facts import (
    INPUT,
    METADATA_KEY,
    ExportFacts,
    Quantization,
    exported_text,
)
from pacavit.engine.exported.model import ExportedModel, find_exported, open_exported
from pacavit.engine.exported.onnx import OnnxReader
from pacavit.engine.exported.openvino import OpenvinoReader
from pacavit.engine.exported.pt2 import Pt2Reader

__all__ = [
    "INPUT",
    "METADATA_KEY",
    "READERS",
    "ExportFacts",
    "ExportedModel",
    "FileEngine",
    "OnnxReader",
    "OpenvinoReader",
    "Pt2Reader",
    "Quantization",
    "Reader",
    "exported_text",
    "find_exported",
    "open_exported",
]
