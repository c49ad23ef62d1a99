"""Explanations and their evaluation as pages, pictures and files."""
