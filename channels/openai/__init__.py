"""The OpenAI endpoint: `POST /v1/chat/completions` and `GET /v1/models`, for every client of OpenAI's API.

`models.py` has the requests and replies, `requests.py` makes a question of a request and `pictures.py` reads its
pictures, `endpoints.py` asks it, `replies.py` is the answer as one reply or as chunks, and `errors.py`
gives every error below `/v1/` OpenAI's shape. `channels/waiting` asks within the replica's limits.

A chunk cannot be taken back. `replies.py` therefore ends a stream whose text is replaced by another one, and
`utils/thinking.py` holds a tag back until it is complete.

A client that goes away cancels its answer, because it has no id to come back with. One that sent an `Idempotency-Key`
has: its answer goes on, and the same request joins it from the first chunk, on any replica.
"""
