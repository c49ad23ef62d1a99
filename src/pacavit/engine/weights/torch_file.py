"""Read files that ``torch.save`` wrote, without executing anything in them."""

from __future__ import annotations

import argparse
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pacavit.errors import CheckpointError
from pacavit.utils.text import one_line

__all__ = ["read_torch_file"]


def read_torch_file(path: Path) -> Mapping[str, Any]:
    """The mapping in a file of ``torch.save``; objects that would run code are refused.

    Raises:
        CheckpointError: there is no such file, it is truncated, or it holds something else. The
            message does not name the file.
    """
    if not path.is_file():
        raise CheckpointError("there is no such file")
    # timm's training script also stores its arguments, which are plain data.
    safe = torch.serialization.safe_globals([argparse.Namespace])
    try:
        with safe, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about pickles, which are refused anyway
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            "it is no checkpoint of PyTorch, or holds other things than weights; nothing in it was "
            "executed; save the state dict alone"
        ) from error
    except Exception as error:  # for broken files torch raises errors of any class
        raise CheckpointError(
            f"it is truncated or no checkpoint of PyTorch ({one_line(error, kind=True)})"
        ) from error
    if not isinstance(checkpoint, Mapping):
        raise CheckpointError(f"it holds a {type(checkpoint).__name__} instead of named weights")
    return checkpoint
