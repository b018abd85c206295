"""The OpenAI endpoint: `POST /v1/chat/completions` and `GET /v1/models`, for every client of OpenAI's API.

`models.py` has the requests and replies, `requests.py` makes a question of a request and `pictures.py` reads its
pictures, `endpoints.py` asks it and returns the whole answer, `stream.py` returns it as chunks, and `errors.py` gives
every error below `/v1/` OpenAI's shape. How a request waits for its answer is in `channels/waiting`.

A chunk cannot be taken back. `sent_text.py` therefore ends a stream whose text is replaced by another one, and
`utils/markdown/thinking_stream.py` holds a tag back until it is whole.

A client that goes away cancels its answer, because it has no id to come back with. One that sent an `Idempotency-Key`
has: its answer goes on, and the same request joins it from the first chunk, on any replica.
"""
