"""What can go wrong with an image or a model.

    ModelsError
    ├── ImageError                 the picture is at fault
    │   ├── ImageFormatError       not an image of an allowed format
    │   ├── ImageDamagedError      cut short or corrupt
    │   └── ImageTooLargeError     over a limit, found before decoding
    ├── OptionError                a caller's option is out of range; names the field
    ├── ModelNotFoundError         no model of this name
    ├── ModelUnusableError         files damaged, or not what the card says
    │   └── CardError              the card itself is wrong; names the key
    ├── DeviceUnavailableError     a device was asked for that cannot be had
    ├── MissingExtraError          an optional dependency is not installed
    └── NonFiniteOutputError       the model produced NaN or infinity

The text of each is a sentence for the person who made the call: it names what came and what was
expected, and never a path of the server or a stack.
"""

from __future__ import annotations


class ModelsError(Exception):
    """Base of every error that this package raises on purpose."""


class ImageError(ModelsError):
    """The picture is at fault."""


class ImageFormatError(ImageError):
    """The bytes are not an image of an allowed format."""


class ImageDamagedError(ImageError):
    """The image is cut short or corrupt."""


class ImageTooLargeError(ImageError):
    """The image is over a limit."""


class OptionError(ModelsError):
    """A caller's option is out of range.

    Attributes:
        field: Name of the option, for example `min_score`.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class ModelNotFoundError(ModelsError):
    """There is no model of this name."""


class ModelUnusableError(ModelsError):
    """The model's files are damaged, or not what its card says."""


class CardError(ModelUnusableError):
    """A model card is not valid; the text names the key."""


class DeviceUnavailableError(ModelsError):
    """A device was asked for by name that cannot be had here."""


class MissingExtraError(ModelsError):
    """An optional dependency is not installed; the text says what to install."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional part: pip install 'prelabel[{extra}]'")
        self.extra = extra


class NonFiniteOutputError(ModelsError):
    """The model produced NaN or infinity."""
