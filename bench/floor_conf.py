"""What the floor is served with: the product's own gunicorn.conf.py, line by line, around another application."""

from __future__ import annotations

import runpy
from pathlib import Path

globals().update(runpy.run_path(str(Path(__file__).parent.parent / "gunicorn.conf.py")))

wsgi_app = "bench.floor:create_app()"
