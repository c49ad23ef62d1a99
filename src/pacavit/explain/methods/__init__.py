"""Explanation methods: those of this package, and others to compare with.

Importing this package registers them.
"""

from pacavit.explain.methods import baselines, contributions, d_rise
from pacavit.explain.methods.base import METHODS, Method, method_title

__all__ = ["METHODS", "Method", "baselines", "contributions", "d_rise", "method_title"]
