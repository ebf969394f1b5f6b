"""The one exception that `data` raises for a mistake that its user can mend."""


class DataError(ValueError):
    """Data that is missing, damaged or not what its dataset promises.

    The message says what was found, where, what was expected and what to do; the command line prints it as it is.
    """
