"""All errors of this product, in one tree.

LaibaoError                     code, status
├── SettingsError               a setting is missing or wrong; the process does not start (config/errors.py)
├── CallbackRefused             a WeCom callback failed a check: answered with 4xx, nothing is changed
├── StoreUnavailable            Redis or SQL did not answer in time
│   └── StoreRefused            Redis or SQL refuses the login, a right or the tables, until an administrator acts
├── StreamClosed                the stream accepts no more chunks from this owner
├── StreamUnknown               the stream does not exist or belongs to another caller
├── BatchUnknown                the batch task does not exist or belongs to another caller
├── BatchFinished               the batch task has ended and cannot be changed
├── BatchUnfinished             the batch task has not ended yet, which this change needs
├── WebhookRefused              the webhook of a batch task cannot be called
├── BatchConflict               the idempotency key was used for a different submission
├── AddressBlocked              too many wrong credentials came from this address
├── BatchQueueFull              too many unfinished batch tasks
├── LinkLost, AckMissing        a frame of the long connection has no acknowledgement (long_connection/protocol.py)
├── ConnectFailed               no connection to another party (http/tunnel.py)
└── AnswerError                 ends an answer; `code` picks the sentence a user sees (config/texts/)
    ├── QuotaUsed               a limit of QUOTAS_FILE is reached
    ├── AuthError               the user is unknown or rejected, or the auth service is unavailable
    ├── FetchError              a file cannot be fetched: its size, its age, its address, or a failure
    └── ProviderError           the answer provider failed
        ├── ConversationGone    the provider no longer knows the conversation
        ├── FormRefused         the provider did not take a person's answer to a form
        ├── StreamBroken        the stream broke off; the provider may still have the answer
        └── Unrecoverable       the provider has no answer to a question asked before
            └── RunFailed       the provider reports that the run failed
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from config.errors import LaibaoError


class CallbackRefused(LaibaoError):
    """A WeCom callback failed a check. `code` names the check and appears in the log only."""

    code = "callback_refused"
    status = 400
    #: More log fields: the bot, the client's address, the difference between the clocks.
    about: Mapping[str, object] = MappingProxyType({})


class StoreUnavailable(LaibaoError):
    """Redis or SQL is unreachable, too slow, or rejects writes."""

    code = "store_unavailable"
    status = 503


class StoreRefused(StoreUnavailable):
    """Redis or SQL refuses the login, or SQL a right or the tables. Only an administrator can change that."""

    code = "store_refused"
    status = 500


#: Codes of questions that were not stored.
STORE_CODES = frozenset((StoreUnavailable.code, StoreRefused.code))


class StreamClosed(LaibaoError):
    """The stream ended or belongs to another owner. The writer must stop."""

    code = "stream_closed"
    status = 409


class StreamUnknown(LaibaoError):
    """The stream does not exist (any more) or belongs to another reader. Callers must not learn which."""

    code = "stream_unknown"
    status = 404


class BatchUnknown(LaibaoError):
    """The task does not exist (any more) or belongs to another owner. Callers must not learn which."""

    code = "batch_unknown"
    status = 404


class BatchFinished(LaibaoError):
    """The task has ended and cannot be changed."""

    code = "batch_finished"
    status = 409


class BatchUnfinished(LaibaoError):
    """The task has not ended: it cannot be asked again or removed."""

    code = "batch_unfinished"
    status = 409


class WebhookRefused(LaibaoError):
    """The webhook's address is not allowed, or its calls could not be signed."""

    code = "webhook_not_allowed"
    status = 422


class BatchConflict(LaibaoError):
    """The same idempotency key was used before for a different submission."""

    code = "batch_conflict"
    status = 409


class AddressBlocked(LaibaoError):
    """Too many wrong credentials came from this address. None is checked for the next `seconds`."""

    code = "address_blocked"
    status = 429

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class BatchQueueFull(LaibaoError):
    """The number of unfinished tasks is at its limit. Submit again when some have ended."""

    code = "batch_queue_full"
    status = 429


class PushRefused(LaibaoError):
    """A push is unknown or is not taken: `push_unknown`, `push_bot_unknown`, `push_bot_callback`, `push_conflict`,
    `push_limited`, `push_queue_full`.

    `seconds` is the time after which it may be sent again, 0.0 where that does not help.
    """

    code = "push_unknown"
    status = 404

    def __init__(self, message: str = "", *, code: str = "", seconds: float = 0.0) -> None:
        super().__init__(message, code=code)
        self.seconds = seconds


class AnswerError(LaibaoError):
    """An error that ends an answer. `config.texts` has a sentence for every code."""

    code = "answer_failed"
    status = 502

    #: What the user sees instead of the code's sentence; "" for that.
    sentence = ""
    #: Seconds after which the question may be asked again; 0.0 if unknown.
    retry_after = 0.0
    #: The limit that is reached: name, amount, seconds of its period, and the time at which it is new; "" for none.
    limit = ""

    @property
    def fields(self) -> dict[str, str]:
        """The fields of a stream that tell this to readers."""
        later = f"{self.retry_after:g}" if self.retry_after else ""
        known = {"refusal": self.sentence, "retry_after": later, "limit": self.limit}
        return {name: value for name, value in known.items() if value}


class QuotaUsed(AnswerError):
    """A limit of QUOTAS_FILE is reached; the sentence says which one, and when it is new."""

    code = "quota_used"
    status = 429

    def __init__(self, *, sentence: str, retry_after: float, limit: str) -> None:
        super().__init__()
        self.sentence, self.retry_after, self.limit = sentence, retry_after, limit


class AuthError(AnswerError):
    """The user may not ask: `unknown_user`, `auth_refused`, `auth_unavailable`, `not_allowed`, `credential_lost`, or
    `store_refused`, which concerns every user.
    """

    code = "auth_refused"
    status = 403

    def __init__(self, message: str = "", *, code: str = "", sentence: str = "") -> None:
        super().__init__(message, code=code)
        self.sentence = sentence


class FetchError(AnswerError):
    """A file cannot be fetched: `media_too_large`, `media_too_old`, `media_not_allowed`, `media_failed`."""

    code = "media_failed"


class ProviderError(AnswerError):
    """The provider failed.

    `http_status` is the provider's HTTP status, 0 without a reply. `retry_after` is its `Retry-After` in seconds, 0.0
    without one.
    """

    code = "provider_error"

    #: Whether no byte of the request can have left, so that it may be sent again without being sent twice.
    unsent = False

    def __init__(self, message: str = "", *, code: str = "", http_status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(message, code=code)
        self.http_status = http_status
        self.retry_after = retry_after


class ConversationGone(ProviderError):
    """The provider no longer knows the conversation. Ask again in a new one."""

    code = "conversation_gone"


class FormRefused(ProviderError):
    """The provider did not take a person's answer to a form.

    `still_open` tells whether the form can be answered again.
    """

    code = "form_rejected"

    def __init__(self, message: str = "", *, code: str = "", http_status: int = 0, still_open: bool = False) -> None:
        super().__init__(message, code=code, http_status=http_status)
        self.still_open = still_open


class StreamBroken(ProviderError):
    """The provider's stream broke off, ended early or timed out. The run may have continued: try `recover`."""

    code = "provider_truncated"


class Unrecoverable(ProviderError):
    """The provider has no answer to a question asked before and will have none. The question may be asked again."""

    code = "interrupted"


class RunFailed(Unrecoverable):
    """The provider reports that the run failed."""
