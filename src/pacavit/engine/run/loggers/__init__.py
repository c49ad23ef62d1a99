"""Where the numbers of a run go beside its own files: TensorBoard, MLflow, Weights & Biases."""

from pacavit.engine.run.loggers.base import LOGGERS, Logger, check_loggers, create_loggers
from pacavit.engine.run.loggers.mlflow import MlflowLogger
from pacavit.engine.run.loggers.tensorboard import TensorBoardLogger
from pacavit.engine.run.loggers.wandb import WandbLogger

__all__ = [
    "LOGGERS",
    "Logger",
    "MlflowLogger",
    "TensorBoardLogger",
    "WandbLogger",
    "check_loggers",
    "create_loggers",
]
