"""The web demo: explain uploaded images.

``explaining``, ``views`` and ``archive`` hold plain functions, ``app`` builds the page from them,
and ``server`` serves it, by default to this machine only. Gradio, an optional dependency, is
imported when the demo is served.
"""

from pacavit.demo.server import HOST, PORT, serve

__all__ = ["HOST", "PORT", "serve"]
