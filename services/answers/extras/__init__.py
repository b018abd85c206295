"""What goes with an answer for bots that want it: the running step before its text, suggested questions after it.

`answer_extras.py` adds them to an answer's events, and says which bots get them; `steps.py` bounds how often a step is
written, `suggestions.py` how long the suggestions are waited for. `opening.py` keeps what the app says before the
first question. A change of what people of WeCom read begins in `services/wecom/frames.py`.

Step and suggestions are not part of the answer's text. Both are fields of the stream's hash: every replica shows the
same, and a new owner finds what the former one stored.
"""
