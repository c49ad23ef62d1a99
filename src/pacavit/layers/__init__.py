"""Plain network pieces that the models are put together from."""

from pacavit.layers.block import Block
from pacavit.layers.embed import ConvStem, PatchStem, PoolTransition, Transition
from pacavit.layers.init import init_weights
from pacavit.layers.mlp import DepthwiseMlp

__all__ = [
    "Block",
    "ConvStem",
    "DepthwiseMlp",
    "PatchStem",
    "PoolTransition",
    "Transition",
    "init_weights",
]
