"""Forms: an app asks a person back, and the person's answer continues the run in a new bubble.

`form_store.py` keeps the open forms of a conversation and claims one for its answer; `words.py` shows a form and reads
an answer; `conversation_forms.py` submits it and continues the run. A change of what people read or type begins in
`words.py`.

A provider yields a `PendingForm` where its run pauses. The form is stored before it is shown, and the answer so far
ends with its text and numbered choices. A later question of the same person in the same conversation, whose words are a
number or a choice, is the form's answer; any other is a question. Only a conversation with open forms costs a round
trip more: `conversations/lua/turn.lua` tells with the turn whether there are any.

**At most once.** The claim is written before the submission leaves, in one step, under the id of the answer's stream;
so is the form, in the field `form` of that stream. A claim of an earlier owner is never submitted again: the new owner
asks the provider whether it still waits. If it does, the form is opened again, and a sentence says so; else the rest of
the answer is shown.
"""
