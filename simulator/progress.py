"""What a call tells while it computes."""

from collections.abc import Callable

# Takes how many are done, and of how many.
Progress = Callable[[int, int], None]
# Takes the same where a part of one may be done, and where it is not known at first of how many.
OpenProgress = Callable[[float, int | None], None]
