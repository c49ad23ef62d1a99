"""The web demo: drop an image, and see what decided.

The work is done by plain functions (``explaining``, ``views``, ``archive``); ``app`` arranges them
on a page, and ``server`` serves it to this machine alone. Gradio, an optional extra, is loaded only
when a demo is served.
"""

from pacavit.demo.server import HOST, PORT, serve

__all__ = ["HOST", "PORT", "serve"]
