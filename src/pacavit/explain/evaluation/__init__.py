"""Measures of how faithful explanations are, and the runs that collect them."""
