"""Recipes: complete, named runs."""

from pacavit.recipes.io import difference, dump, load, names, parse
from pacavit.recipes.schema import DataConfig, ModelConfig, Recipe, TrainConfig

__all__ = [
    "DataConfig",
    "ModelConfig",
    "Recipe",
    "TrainConfig",
    "difference",
    "dump",
    "load",
    "names",
    "parse",
]
