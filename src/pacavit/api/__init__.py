"""The verbs of the command line as Python functions, with the same names and arguments."""

from typing import TYPE_CHECKING

from pacavit.utils.lazy import lazy_names

if TYPE_CHECKING:
    from pacavit.api.benchmarking import bench
    from pacavit.api.comparing import compare, reproduce
    from pacavit.api.explaining import explain, explain_bench, explain_evaluate
    from pacavit.api.exporting import export
    from pacavit.api.listing import Entry, RecipeField, list_names, recipe_fields
    from pacavit.api.measuring import evaluate_predictions
    from pacavit.api.predicting import PredictionFile, predict, predict_to_file
    from pacavit.api.publishing import convert, from_pretrained, save_pretrained
    from pacavit.api.serving import demo, serve
    from pacavit.api.training import evaluate, report_file, results_folder, train
    from pacavit.report.publishing.published import Published, published
else:
    # A verb loads what it needs, and not what the other verbs need.
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "pacavit.api.benchmarking": ("bench",),
            "pacavit.api.comparing": ("compare", "reproduce"),
            "pacavit.api.explaining": ("explain", "explain_bench", "explain_evaluate"),
            "pacavit.api.exporting": ("export",),
            "pacavit.api.listing": ("Entry", "RecipeField", "list_names", "recipe_fields"),
            "pacavit.api.measuring": ("evaluate_predictions",),
            "pacavit.api.predicting": ("PredictionFile", "predict", "predict_to_file"),
            "pacavit.api.publishing": ("convert", "from_pretrained", "save_pretrained"),
            "pacavit.api.serving": ("demo", "serve"),
            "pacavit.api.training": ("evaluate", "report_file", "results_folder", "train"),
            "pacavit.report.publishing.published": ("Published", "published"),
        },
    )

__all__ = [
    "Entry",
    "PredictionFile",
    "Published",
    "RecipeField",
    "bench",
    "compare",
    "convert",
    "demo",
    "evaluate",
    "evaluate_predictions",
    "explain",
    "explain_bench",
    "explain_evaluate",
    "export",
    "from_pretrained",
    "list_names",
    "predict",
    "predict_to_file",
    "published",
    "recipe_fields",
    "report_file",
    "reproduce",
    "results_folder",
    "save_pretrained",
    "serve",
    "train",
]
