"""The exceptions for what the user can put right."""


class InputError(ValueError):
    """Bad input from the user: the message says where, what was found, what was expected and what to do.

    The command line prints the message without a traceback and ends with exit code 2.
    """


class MissingLibraryError(InputError, ImportError):
    """A library of an optional extra is not installed: the message says how to install it."""
