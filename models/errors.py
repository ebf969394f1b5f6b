"""The one exception that `models` raises for a mistake that its user can mend."""


class ModelError(ValueError):
    """A request for a network that cannot be met.

    The message says what was found, what was expected and what to do; the command line prints it as it is.
    """
