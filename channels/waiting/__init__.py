"""Requests that wait for an answer, shared by the channels over plain HTTP: `/api/chat` and the OpenAI endpoint.

`waits.py` is one request's way along its stream, `line.py` its client's connection, `questions.py` asks a question
within the limits of this replica, and `statuses.py` has the HTTP status of each error code.
"""
