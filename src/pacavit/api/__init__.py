"""The verbs of the command line as Python functions, with the same names and arguments."""

from pacavit.api.comparing import compare, reproduce
from pacavit.api.inference import demo, explain, explain_bench, explain_evaluate, predict
from pacavit.api.listing import Entry, list_names
from pacavit.api.publishing import convert, from_pretrained, save_pretrained
from pacavit.api.training import evaluate, report_file, results_folder, train
from pacavit.report.publishing.published import Published, published

__all__ = [
    "Entry",
    "Published",
    "compare",
    "convert",
    "demo",
    "evaluate",
    "explain",
    "explain_bench",
    "explain_evaluate",
    "from_pretrained",
    "list_names",
    "predict",
    "published",
    "report_file",
    "reproduce",
    "results_folder",
    "save_pretrained",
    "train",
]
