"""What can go wrong in the use cases and the engine. No transport is known here.

    RequestError
    ├── InvalidFieldError        a field is missing, out of range or contradicts another
    ├── ImageNotCachedError      an image named by digest is no longer held
    ├── MaskNotCachedError       a mask named by token is no longer held
    ├── SourceNotAllowedError    this way of naming an image is turned off
    ├── WrongTaskError           the model does not do this task
    ├── ModelNotLoadedError      the model was unloaded by hand
    ├── QueueFullError           refused at the door; carries when to come back
    ├── DeadlineError            the caller's deadline passed
    └── DrainingError            the server is shutting down

Errors about images and models are `prelabel_models.errors`; `rpc.status` maps both to codes.
"""

from __future__ import annotations

from prelabel_models.errors import OptionError


class RequestError(Exception):
    """Base of every error that this package raises on purpose; the text is for the caller."""


class InvalidFieldError(RequestError):
    """A field of a request was refused.

    Attributes:
        field: Its path, for example `options.min_score`.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field

    @classmethod
    def from_option(cls, err: OptionError, prefix: str = "") -> InvalidFieldError:
        """The same refusal, under the field's name in a request.

        Args:
            err: Names the field as the models know it; its text begins with that name.
            prefix: Path of the message that holds the field, for example `options.`.
        """
        return cls(prefix + err.field, str(err).removeprefix(f"{err.field}: "))


class ImageNotCachedError(RequestError):
    """An image named by digest is not held for this caller."""


class MaskNotCachedError(RequestError):
    """A mask named by token is not held for this caller, image and model."""


class SourceNotAllowedError(RequestError):
    """This way of naming an image is turned off."""


class WrongTaskError(RequestError):
    """The model does not do this task."""


class ModelNotLoadedError(RequestError):
    """The model was unloaded by hand and is not loaded by requests."""


class QueueFullError(RequestError):
    """Refused at the door.

    Attributes:
        retry_after_s: When the queue has probably room again.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineError(RequestError):
    """The caller's deadline passed before the answer was ready."""


class DrainingError(RequestError):
    """The server is shutting down."""
