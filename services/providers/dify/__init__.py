"""Dify as a provider: its service API, its event streams, the recovery of answers.

`service.py` is the client, `stream.py` reads its event streams, `answer.py` is the state machine of one answer. The
command `tools.dify` uses these three too, so the tool and the product read events alike. `recovery.py` finds an answer
whose owner or stream was lost; `forms.py` submits the forms of a paused run and reads the rest of its answer.
"""
