"""Detectors in the demo."""
