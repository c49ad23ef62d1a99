"""Layers of the models: stems, transitions, blocks, and their initialization."""

from pacavit.layers.block import Block
from pacavit.layers.embed import (
    ConvStem,
    PatchStem,
    PoolTransition,
    Transition,
    fill_padding,
    reduce_mask,
)
from pacavit.layers.init import init_weights
from pacavit.layers.mlp import DepthwiseMlp
from pacavit.layers.modes import evaluation_mode
from pacavit.layers.optimize import optimize

__all__ = [
    "Block",
    "ConvStem",
    "DepthwiseMlp",
    "PatchStem",
    "PoolTransition",
    "Transition",
    "evaluation_mode",
    "fill_padding",
    "init_weights",
    "optimize",
    "reduce_mask",
]
