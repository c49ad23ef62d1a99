"""Classifiers in the demo."""
