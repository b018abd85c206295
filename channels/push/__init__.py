"""The REST addresses of pushes: messages that nobody asked for, through a bot's long connection.

`endpoints.py` reads a request, as JSON or as a form with a file, and answers with the push's state; `models.py` has
their shapes. `services/wecom/long_connection/pushes.py` queues a push, and the replica that holds the bot's
connection sends it.
"""
