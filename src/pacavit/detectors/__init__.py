"""Networks that find objects: from the maps of a backbone to boxes, classes and masks.

Importing this package registers them.
"""

from pacavit.detectors.base import DETECTORS, Detected, Detector, Target
from pacavit.detectors.faster_rcnn import FasterRcnn
from pacavit.detectors.fcos import Fcos
from pacavit.detectors.mask_rcnn import MaskRcnn
from pacavit.detectors.watershed import Watershed

__all__ = [
    "DETECTORS",
    "Detected",
    "Detector",
    "FasterRcnn",
    "Fcos",
    "MaskRcnn",
    "Target",
    "Watershed",
]
