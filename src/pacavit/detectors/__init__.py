"""Networks that find objects: from the maps of a backbone to boxes, classes and masks."""

from pacavit.detectors.base import DETECTORS, Detected, Detector, Target
from pacavit.detectors.watershed import Watershed

__all__ = ["DETECTORS", "Detected", "Detector", "Target", "Watershed"]
