"""Conformance checks for clusterings, attentions, backbones, heads and detectors.

Each check takes a class or a model, and raises AssertionError with the requirement that is
violated. The checks import only the types of this package, so that other projects can run them on
classes of their own::

    from pacavit.testing import check_clustering

    def test_mine():
        check_clustering(MyClustering)
"""

from pacavit.testing.dense import check_backbone, check_detector, check_head
from pacavit.testing.exported import check_exported_attention, check_exported_clustering
from pacavit.testing.tokens import check_attention, check_clustering

__all__ = [
    "check_attention",
    "check_backbone",
    "check_clustering",
    "check_detector",
    "check_exported_attention",
    "check_exported_clustering",
    "check_head",
]
