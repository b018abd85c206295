"""Requests that wait for an answer, shared by the channels over plain HTTP: `/api/chat` and the OpenAI endpoint.

`requests.py` asks a question within the limits of this replica, and `connection.py` is the client's connection.
"""
