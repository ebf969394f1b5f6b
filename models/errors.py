"""What `models` raises for a mistake that its user can mend."""


class ModelError(ValueError):
    """A request for a network that cannot be met.

    The message says what was found, what was expected and what to do; the command line prints it as it is.
    """


class PublishedWarning(UserWarning):
    """What a file of published weights cannot tell and whoever loads it must know."""


class ImageSizeError(ModelError):
    """An image size that a network does not take.

    Args:
        message: names the nearest sizes that it takes.
        above: the nearest (D, H, W) of them with no axis shorter than asked, in voxels.
    """

    def __init__(self, message: str, above: tuple[int, ...]) -> None:
        super().__init__(message)
        self.above = above
