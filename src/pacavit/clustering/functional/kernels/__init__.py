"""Loops over images that numba compiles for the CPU; imported by what calls them."""

from pacavit.clustering.functional.kernels.chains import nearest_neighbor_chains
from pacavit.clustering.functional.kernels.cores import connected_cores, reaches
from pacavit.clustering.functional.kernels.lloyd import lloyd
from pacavit.clustering.functional.kernels.mixtures import fit_mixtures

__all__ = [
    "connected_cores",
    "fit_mixtures",
    "lloyd",
    "nearest_neighbor_chains",
    "reaches",
]
