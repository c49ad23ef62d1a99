"""The server: trained models over HTTP, for programs.

``tensors`` is the wire format of the Open Inference Protocol V2, ``answers`` the tensors of each
task, ``batching`` the queue, ``models`` what is served and its reloading, ``guard`` the limits,
``app`` the routes, and ``server`` the processes. FastAPI, an optional dependency, is imported when
something is served.
"""

from pacavit.serve.options import ServeOptions
from pacavit.serve.server import HOST, PORT, serve

__all__ = ["HOST", "PORT", "ServeOptions", "serve"]
