"""The files of messages and of answers.

Imports `streams`, `providers`, `identity`, `http` and `redis`. Files of messages: `intake.py` fetches and decrypts them
and gives them to the provider, before the question waits for its turn; `sent_store.py` has those that came with the
question itself, or were uploaded before it (`uploads.py`), in encrypted slices (`slices.py`); `kinds.py` tells a file's
type by its name and bytes. Which providers take files: `BaseRAGProvider.takes_files`.

Files of answers: `sources.py` finds their addresses, `collection.py` fetches them while the answer grows, `reading.py`
fetches and checks one, `convert.py` is the process that converts a picture, `answer_store.py` has the keys. `shown.py`
has the words, lines and links that readers see, `links.py` signs the addresses below `/files/`, and `delivery.py` opens
them.

`budget_store.py` bounds the bytes of the files of both kinds in Redis.
"""
