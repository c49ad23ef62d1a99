"""Training, checkpoints, weights and evaluation."""

from pacavit.engine.evaluate import ClassScores, Evaluation, evaluate
from pacavit.engine.train import train
from pacavit.engine.weights.format import save_weights
from pacavit.engine.weights.load import LoadedModel, load_model
from pacavit.engine.weights.packaged import packaged_names

__all__ = [
    "ClassScores",
    "Evaluation",
    "LoadedModel",
    "evaluate",
    "load_model",
    "packaged_names",
    "save_weights",
    "train",
]
