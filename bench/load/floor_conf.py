"""What the floor is served with: the product's own gunicorn.conf.py, line by line, around another application."""

from __future__ import annotations

import runpy
from pathlib import Path

globals().update(runpy.run_path(str(Path(__file__).parents[2] / "gunicorn.conf.py")))

wsgi_app = "bench.load.floor:create_app()"
