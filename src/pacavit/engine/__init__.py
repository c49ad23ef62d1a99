"""Training, checkpoints, weights and evaluation."""

from pacavit.engine.evaluate import ClassScores, Evaluation, evaluate
from pacavit.engine.train import train
from pacavit.engine.weights.load import LoadedModel, load_model, packaged_names, save_weights

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
