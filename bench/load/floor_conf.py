"""The floor's gunicorn configuration: executes the product's gunicorn.conf.py with another application."""

from __future__ import annotations

import runpy
from pathlib import Path

from server import libraries

# The floor uses none of them.
libraries.LIBRARIES = ()
globals().update(runpy.run_path(str(Path(__file__).parents[2] / "gunicorn.conf.py")))

wsgi_app = "bench.load.floor:create_app()"
