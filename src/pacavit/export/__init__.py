"""Write networks as files for other engines: ONNX, OpenVINO, torch.export, Triton."""

from pacavit.export.export import Exported, ExportOptions, export_model
from pacavit.export.writers import WRITERS, Job, Writer

__all__ = ["WRITERS", "ExportOptions", "Exported", "Job", "Writer", "export_model"]
