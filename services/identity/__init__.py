"""Users of WeCom, callers of REST and sockets, their limits, and the keys that name and seal their data.

Imports `redis`, `sql` and `http`. The order of cached token, user record and auth API is in `auth_service.py`, the auth
API's wire format in `auth_api_service.py`; credentials of programs and sockets are in `callers.py`.

`rate_limiter.py` counts questions over sockets and HTTP in Redis, by the library `limits` over our own client.
Neither `RATE_LIMIT_USER` nor `RATE_LIMIT_KEY` applies to WeCom, since a person has a few slots there, which belong to
the streams.
`guesses.py` blocks an address for its wrong credentials.

`keys.py` derives every key by purpose and bot from `SECRET_KEY` or the bot's AES keys, so a bot's change does not
affect another bot. Data of no bot is named by a random secret that all replicas share in Redis (`secret_store.py`). A
list of keys writes with the first and reads with all: readers' fingerprints are written under each key, and a
conversation under a former key's name is found in the question's own round trip (one command per such name) and moved
by its first question.

A question asked over a socket holds its user's token, sealed under `SECRET_KEY` or a bot's key, never under the secret
in Redis, because another replica may have to ask as this person. Without either setting the key is one process's own:
a question that another process takes over then ends with the sentence `credential_lost`. A question of a channel other
than WeCom's is asked as the user its credential names; one whose credential cannot be checked is refused.
"""
