"""Vision transformers whose attention runs from patches to clusters (PaCa-ViT).

Importing this package registers its models with timm, and loads nothing else: all other names are
imported on first access, so that scikit-learn, matplotlib or torchmetrics are loaded by what needs
them.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from pacavit import models
from pacavit.utils.lazy import lazy_names

if TYPE_CHECKING:
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
    from pacavit.tasks import TASKS, Task
    from pacavit.tasks.classification import ImagePrediction
    from pacavit.types import Assignment, AttentionRecord, Grid, StageState
    from pacavit.utils.registry import Registry, load_plugin
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "pacavit.api": (
                "Entry",
                "convert",
                "evaluate",
                "from_pretrained",
                "list_names",
                "predict",
                "save_pretrained",
                "train",
            ),
            "pacavit.attention": ("ATTENTIONS", "Attention", "QkvAttention"),
            "pacavit.clustering": ("CLUSTERINGS", "Clustering"),
            "pacavit.data": ("DATASETS", "DataInfo", "DataSource", "ImageSet", "MemoryImages"),
            "pacavit.engine.evaluate": ("Evaluation",),
            "pacavit.engine.weights.original": ("Conversion",),
            "pacavit.errors": (
                "CheckpointError",
                "DataError",
                "PacavitError",
                "RecipeError",
                "UnknownNameError",
            ),
            "pacavit.recipes": ("Recipe",),
            "pacavit.tasks": ("TASKS", "Task"),
            "pacavit.tasks.classification": ("ImagePrediction",),
            "pacavit.types": ("Assignment", "AttentionRecord", "Grid", "StageState"),
            "pacavit.utils.registry": ("Registry", "load_plugin"),
        },
        submodules=(
            "api",
            "attention",
            "bench",
            "clustering",
            "compare",
            "data",
            "demo",
            "engine",
            "errors",
            "explain",
            "recipes",
            "report",
            "serve",
            "tasks",
            "testing",
            "types",
        ),
    )


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
