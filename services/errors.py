"""Every error this product raises, one tree.

LaibaoError                     code, status
├── SettingsError               the start stops; one line for the operator
├── CallbackRefused             a WeCom callback that failed a check: 4xx, nothing touched
├── StoreUnavailable            Redis or SQL did not answer in time
├── StreamClosed                the stream takes no more chunks from this owner
├── StreamUnknown               no such stream, or it is somebody else's
├── BatchUnknown                no such batch task, or it is somebody else's
├── BatchFinished               the batch task has ended: nothing about it can change
├── BatchConflict               the idempotency key stands for another submission
├── AddressBlocked              too many wrong credentials came from this address
├── BatchQueueFull              too many unfinished batch tasks
└── AnswerError                 ends an answer; `code` picks the sentence a user sees (config/texts.py)
    ├── AuthError               unknown user, refused, service unavailable
    └── ProviderError           what went wrong at the answer provider
        ├── ConversationGone    the provider no longer knows the conversation
        ├── StreamBroken        the stream broke off; the provider may have the answer all the same
        └── Unrecoverable       the answer to a question asked before cannot be had any more
            └── RunFailed       because the provider says that the run failed
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType


class LaibaoError(Exception):
    """The base: `code` is stable and may be shown, the message is for the log."""

    code = "unknown"
    #: HTTP status where an error becomes a reply.
    status = 500

    def __init__(self, message: str = "", *, code: str = "") -> None:
        super().__init__(message or code or self.code)
        if code:
            self.code = code


class SettingsError(LaibaoError):
    """A missing or wrong setting; the message names the variable, the value and what is expected."""

    code = "settings"


class CallbackRefused(LaibaoError):
    """A WeCom callback that failed a check; `code` names the check, in the log only."""

    code = "callback_refused"
    status = 400
    #: What else the log says: which bot was asked, by which address, how far the clocks are apart.
    about: Mapping[str, object] = MappingProxyType({})


class StoreUnavailable(LaibaoError):
    """Redis or SQL is away, too slow, or refuses writes."""

    code = "store_unavailable"
    status = 503


class StreamClosed(LaibaoError):
    """The stream ended or belongs to another owner; whoever writes it must stop."""

    code = "stream_closed"
    status = 409


class StreamUnknown(LaibaoError):
    """The stream does not exist (any more), or is not this reader's: which of them is nobody's business."""

    code = "stream_unknown"
    status = 404


class BatchUnknown(LaibaoError):
    """The task does not exist (any more), or is not this owner's: which of them is nobody's business."""

    code = "batch_unknown"
    status = 404


class BatchFinished(LaibaoError):
    """The task has ended, and an end is final."""

    code = "batch_finished"
    status = 409


class BatchConflict(LaibaoError):
    """The same idempotency key came with something else before."""

    code = "batch_conflict"
    status = 409


class AddressBlocked(LaibaoError):
    """Too many wrong credentials came from this address: none is looked at for so many `seconds`."""

    code = "address_blocked"
    status = 429

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class BatchQueueFull(LaibaoError):
    """As many tasks are unfinished as may be: submit again when some have ended."""

    code = "batch_queue_full"
    status = 429


class AnswerError(LaibaoError):
    """Ends an answer; `config.texts` has a sentence for every code."""

    code = "answer_failed"
    status = 502


class AuthError(AnswerError):
    """The user may not ask: `unknown_user`, `auth_refused`, `auth_unavailable`, `not_allowed`, `credential_lost`."""

    code = "auth_refused"
    status = 403


class ProviderError(AnswerError):
    """The provider failed; `http_status` is its HTTP status, 0 where there was none.

    `retry_after` is how long it asked to be left alone, in seconds, 0.0 where it did not.
    """

    code = "provider_error"

    def __init__(self, message: str = "", *, code: str = "", http_status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(message, code=code)
        self.http_status = http_status
        self.retry_after = retry_after


class ConversationGone(ProviderError):
    """The provider does not know the conversation any more: ask once more as a new one."""

    code = "conversation_gone"


class StreamBroken(ProviderError):
    """The provider's stream broke off, ended early or fell silent; the run may have gone on: `recover` may have it."""

    code = "provider_truncated"


class Unrecoverable(ProviderError):
    """The provider has no answer, and will have none, to a question that was asked before: it may be asked again."""

    code = "interrupted"


class RunFailed(Unrecoverable):
    """The provider tells that the run ended in failure."""
