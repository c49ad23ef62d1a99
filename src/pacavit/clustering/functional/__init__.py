"""Classic clusterings of (B, N, C) tensors, every image for itself, as plain functions."""

from pacavit.clustering.functional._agglomerative import AgglomerativeResult, agglomerative
from pacavit.clustering.functional._dbscan import DBSCANResult, dbscan
from pacavit.clustering.functional._kmeans import KMeansResult, kmeans
from pacavit.clustering.functional._mixture import GaussianMixtureResult, gaussian_mixture

__all__ = [
    "AgglomerativeResult",
    "DBSCANResult",
    "GaussianMixtureResult",
    "KMeansResult",
    "agglomerative",
    "dbscan",
    "gaussian_mixture",
    "kmeans",
]
