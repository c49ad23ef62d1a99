"""The verbs of the command line as Python functions, with the same names and arguments."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import timm

from pacavit import engine, recipes
from pacavit._registry import Registry
from pacavit.attention import ATTENTIONS
from pacavit.clustering import CLUSTERINGS
from pacavit.data import DATASETS, SPLITS
from pacavit.errors import DataError, PacavitError, RecipeError, UnknownNameError
