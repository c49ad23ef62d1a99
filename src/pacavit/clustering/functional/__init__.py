"""Classic clusterings as functions on (B, N, C) tensors; each image is clustered on its own."""

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
