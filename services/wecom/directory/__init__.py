"""Names and departments of the people who ask, from WeCom's directory (通讯录), for providers and commands.

`directory.py` says who a userid is within a bounded wait, and looks each person up at most once an hour over all
replicas: the claim of that hour is in Redis before the person's own request leaves. What was found is kept for a week
(`contact_store.py`), so a replica that takes a question over, and a directory that is away, change nothing for a person
who is known. `access.py` shares the access token: it is sealed in Redis, and one replica at a time renews it.
`api_service.py` has the wire format, and says what of it is documented.

A directory that fails costs each person one wait at most: from the first wait in vain until a look-up succeeds nobody
waits, and for half a minute after a failure nothing is looked up. Questions are asked all the same.
"""
