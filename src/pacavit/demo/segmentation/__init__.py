"""Segmentation models in the demo."""
