"""Vision transformers whose attention runs from patches to clusters (PaCa-ViT).

Importing this package registers its models with timm.
"""

from importlib.metadata import PackageNotFoundError, version

from pacavit import models
from pacavit.api import (
    Entry,
    convert,
    evaluate,
    from_pretrained,
    list_names,
    predict,
    save_pretrained,
    train,
)
from pacavit.attention import ATTENTIONS, Attention, QkvAttention
from pacavit.clustering import CLUSTERINGS, Clustering
from pacavit.data import DATASETS, DataInfo, DataSource, ImageSet, MemoryImages
from pacavit.engine.evaluate import Evaluation
from pacavit.engine.weights.original import Conversion
from pacavit.errors import (
    CheckpointError,
    DataError,
    PacavitError,
    RecipeError,
    UnknownNameError,
)
from pacavit.recipes import Recipe
from pacavit.report.tasks.classification import ImagePrediction
from pacavit.tasks import TASKS, Task
from pacavit.types import Assignment, AttentionRecord, Grid, StageState
from pacavit.utils.registry import Registry, load_plugin

try:
    __version__ = version("pacavit")
except PackageNotFoundError:  # a source tree on the path, never installed
    __version__ = "0+unknown"

__all__ = [
    "ATTENTIONS",
    "CLUSTERINGS",
    "DATASETS",
    "TASKS",
    "Assignment",
    "Attention",
    "AttentionRecord",
    "CheckpointError",
    "Clustering",
    "Conversion",
    "DataError",
    "DataInfo",
    "DataSource",
    "Entry",
    "Evaluation",
    "Grid",
    "ImagePrediction",
    "ImageSet",
    "MemoryImages",
    "PacavitError",
    "QkvAttention",
    "Recipe",
    "RecipeError",
    "Registry",
    "StageState",
    "Task",
    "UnknownNameError",
    "__version__",
    "convert",
    "evaluate",
    "from_pretrained",
    "list_names",
    "load_plugin",
    "models",
    "predict",
    "save_pretrained",
    "train",
]
