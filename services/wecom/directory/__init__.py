"""Names and departments of the people who ask, from WeCom's directory (通讯录), for providers and commands.

`directory.py` returns a person's contact within a bounded wait, and looks each person up at most once an hour over all
replicas: the claim of that hour is in Redis before the person's own request leaves. Contacts are kept for a week
(`contact_store.py`), so for a known person neither a takeover nor an outage of the directory changes anything.
`access_token_store.py` shares the access token: it is sealed in Redis, and one replica at a time renews it.
`api_service.py` has the wire format, and lists the parts of it that are documented.

A directory that fails costs each person one wait at most: after the first wait that timed out, no question waits until
a look-up succeeds, and for 30 seconds after a failure no look-up begins. Questions are asked without a name then.
"""
