"""Test-time augmentation of loaded models."""

from __future__ import annotations

from pacavit.engine.weights.load import LoadedModel
from pacavit.errors import UnknownNameError
from pacavit.tasks.classification import TEST_TIME_VIEWS

__all__ = ["augment_test_time", "check_tta"]


def check_tta(name: str | None) -> None:
    """Raise UnknownNameError unless a test-time augmentation has that name; None is none."""
    if name is not None and name not in TEST_TIME_VIEWS:
        raise UnknownNameError("test-time augmentation", name, TEST_TIME_VIEWS)


def augment_test_time(model: LoadedModel, name: str | None) -> LoadedModel:
    """Let a classifier average its probabilities over views of each image.

    Args:
        model: its task is changed.
        name: of ``TEST_TIME_VIEWS``; None leaves the model as it is.

    Returns:
        The model.

    Raises:
        UnknownNameError: there is no such augmentation.
        CheckpointError: the model does not classify images.
    """
    check_tta(name)
    if name is not None:
        model.classifier.test_time_augmentation = name
    return model
