"""The libraries that the workers of a replica share: the master loads them once, before it forks.

Code and classes that a worker does not change stay in the master's memory, and a worker that is started again, after a
reload or a crash, serves a second earlier. The product's own modules are left out, because a reload imports them anew;
so is prometheus_client, which reads the folder of the metrics at import.
"""

import gc
from importlib import import_module

#: Every package that a worker imports, with the parts of it that are imported apart.
LIBRARIES: tuple[str, ...] = (
    "ahocorasick_rs",
    "concurrent_log_handler",
    "cryptography.hazmat.primitives.ciphers.aead",
    "flask_compress",
    "gevent.pywsgi",
    "hiredis",
    "latex2mathml.converter",
    "limits.storage",
    "limits.strategies",
    "markdown_it",
    "nh3",
    "orjson",
    "pydantic",
    "pymysql",
    "pygments.lexers",
    "re2",
    "redis.cluster",
    "redis.sentinel",
    "requests",
    "sqlalchemy.dialects.mysql",
    "sqlalchemy.dialects.sqlite",
    "tenacity",
    "urllib3",
    "websockets.server",
    "werkzeug.middleware.proxy_fix",
    "yaml",
)


def share() -> None:
    """Load the libraries, and keep the garbage collector of each worker away from them."""
    for name in LIBRARIES:
        import_module(name)
    gc.collect()
    gc.freeze()
