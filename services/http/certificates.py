"""Which certificates of other parties are trusted, and the words for one that is not.

One rule for the server and all tools, that of requests: the file or folder in REQUESTS_CA_BUNDLE (or CURL_CA_BUNDLE),
else the authorities that Mozilla trusts, which certifi brings along. Redis and MySQL have settings of their own.
"""

from __future__ import annotations

import os
import ssl
from typing import Any

from requests import Session
from requests.utils import DEFAULT_CA_BUNDLE_PATH

#: OpenSSL's codes of an expired certificate and of one for another host: no other authority helps.
_OTHER_FAULTS = (10, 62, 63, 64)


def bundle_of(verify: object) -> str:
    """Return the file or folder of trusted certificates for the `verify` that requests has found for an address."""
    return verify if isinstance(verify, str) else str(DEFAULT_CA_BUNDLE_PATH)


def bundle_for(url: str) -> str:
    """Return the file or folder of trusted certificates for an address."""
    return bundle_of(Session().merge_environment_settings(url, {}, None, None, None)["verify"])


def tls_context(url: str) -> ssl.SSLContext:
    """Return the TLS context of a connection to an https address that neither requests nor a pool opens."""
    bundle = bundle_for(url)
    folder = os.path.isdir(bundle)
    return ssl.create_default_context(cafile=None if folder else bundle, capath=bundle if folder else None)


def tls_failure(exc: BaseException | None) -> str:
    """Return the words for an error of TLS, and "" for any other error. They have no address.

    urllib3 and requests wrap the error of OpenSSL several times.
    """
    found = _tls_error(exc)
    if isinstance(found, ssl.SSLCertVerificationError):
        remedy = "" if found.verify_code in _OTHER_FAULTS else "; REQUESTS_CA_BUNDLE names the file of its authority"
        return f"certificate verify failed: {found.verify_message}{remedy}"
    return f"TLS failed: {found.reason}" if found and found.reason else ""


def is_untrusted(exc: BaseException | None) -> bool:
    """Return whether a certificate was not accepted: the next attempt has the same result."""
    return isinstance(_tls_error(exc), ssl.SSLCertVerificationError)


def _tls_error(exc: BaseException | None) -> ssl.SSLError | None:
    seen: list[Any] = [exc]
    for each in seen:
        if isinstance(each, ssl.SSLError):
            return each
        if isinstance(each, BaseException) and len(seen) < 20:
            seen += [each.__cause__, getattr(each, "reason", None), *each.args]
    return None
