"""Clusterings: the first extension point, one file a method."""

from pacavit.clustering.base import CLUSTERINGS, Clustering
from pacavit.clustering.conv import ConvClustering
from pacavit.clustering.grid import GridClustering
from pacavit.clustering.linear import LinearClustering
from pacavit.clustering.mlp import MlpClustering
from pacavit.clustering.random import RandomClustering
from pacavit.clustering.teacher import TeacherClustering

__all__ = [
    "CLUSTERINGS",
    "Clustering",
    "ConvClustering",
    "GridClustering",
    "LinearClustering",
    "MlpClustering",
    "RandomClustering",
    "TeacherClustering",
]
