"""The files of messages: fetched, decrypted and given to the provider, before the question waits for its turn.

Imports `files`, `http`, `wecom`, `providers` and floor 2. `media_service.py` fetches and decrypts a file; `intake.py`
is the order of it all, and what a replica that takes a question over does again.

An address of WeCom is valid for five minutes, so files are fetched by the producer as soon as it knows who asks. An
uploaded file's id is stored in the question at once (`Uploaded`): a replica that takes over uploads the others only. A
provider that takes files within the question (`inline`) has no id to store, so a replica that takes over fetches them
again. A change of which providers take files begins in `BaseRAGProvider.takes_files`.
"""
