"""The one exception type for input that the user can put right."""


class InputError(ValueError):
    """Bad input from the user: the message says where, what was found, what was expected and what to do.

    The command line prints the message without a traceback and ends with exit code 2.
    """
