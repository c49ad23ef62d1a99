"""Clusterings: the first extension point, one file per method."""

from pacavit.clustering.base import CLUSTERINGS, Clustering
from pacavit.clustering.conv import ConvClustering
from pacavit.clustering.dbscan import DBSCANClustering
from pacavit.clustering.dpc_knn import DensityPeakClustering
from pacavit.clustering.elastic import ElasticClustering, use_clusters
from pacavit.clustering.gmm import GaussianMixtureClustering
from pacavit.clustering.grid import GridClustering
from pacavit.clustering.hierarchical import HierarchicalClustering
from pacavit.clustering.kmeans import KMeansClustering
from pacavit.clustering.linear import LinearClustering
from pacavit.clustering.mlp import MlpClustering
from pacavit.clustering.random import RandomClustering
from pacavit.clustering.super_tokens import SuperTokenClustering
from pacavit.clustering.teacher import TeacherClustering

__all__ = [
    "CLUSTERINGS",
    "Clustering",
    "ConvClustering",
    "DBSCANClustering",
    "DensityPeakClustering",
    "ElasticClustering",
    "GaussianMixtureClustering",
    "GridClustering",
    "HierarchicalClustering",
    "KMeansClustering",
    "LinearClustering",
    "MlpClustering",
    "RandomClustering",
    "SuperTokenClustering",
    "TeacherClustering",
    "use_clusters",
]
