"""Recipes: complete, named runs."""

from pacavit.recipes.io import difference, dump, flatten, load, names, parse
from pacavit.recipes.schema import DataConfig, ModelConfig, Recipe, TrainConfig

__all__ = [
    "DataConfig",
    "ModelConfig",
    "Recipe",
    "TrainConfig",
    "difference",
    "dump",
    "flatten",
    "load",
    "names",
    "parse",
]
