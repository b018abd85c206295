"""From a question to its answer: the gateway, the provider's run, takeover.

Imports `streams`, `conversations`, `identity` and `providers`. Every channel calls `gateway.Gateway` and nothing else
here. A change of a channel's rules begins in `channels/registry.py`.

**Asking.** Opening a stream also returns its conversation's turn and memory (`conversations/lua/turn.lua`). A question
whose turn it is needs one more acknowledged write before its provider is asked: `asks`, the number of calls. A
conversation's `CONVERSATION_TTL` starts anew with each question; its id is written only when it is new.
`provider_run.py` is one call of a provider; when the stream breaks off (`StreamBroken`), the same owner looks the
answer up as after a takeover, and does not ask again. A provider's id, the answer's cost and its sources are stored
beside the text.

**Apps.** Which app answers is known when the person is: `Answerer._admitted` chooses it by the rules, and the stream's
field `app` keeps it for every later owner. The question waits in the queue of the bot's own app (`conversation`), and
its memory and forms are those of the app that answers (`_key`).

**Commands.** `commands.py` stops answers, asks the last question again and hands it over, for WeCom's users. A question
is noted in its person's list of the chat (`asked_store.py`) in the round trip that opens its stream, so a command knows
the earlier ones, also when it is delivered again.

**Takeover.** The new owner loads the chunks and keeps the question's position in its conversation's queue. Then it
depends on the fields that the old owner had stored:

- not asked yet: ask.
- asked: look the answer up (Dify: run result, event stream, message history). If the answer extends the
  text, append the rest; else replace the text by the answer.
- asked, and nothing can be looked up: stop the old run and ask once more. Hold the new text until it begins with the
  old one, or is whole and replaces it.
- the provider's last event was stored (`whole`): end the stream.
- asked twice, or five owners lost: look the answer up, else end with the text so far and a sentence. The eighth lost
  owner ends the stream without a look-up.

**Forms.** A run that pauses for a person ends its stream with a form, and a later question continues it: `forms/`.

A stream of a newer schema version is left to replicas of that version until its time is over.
"""
