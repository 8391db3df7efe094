"""The codes that the command line exits with: the one list of them, stable from version to version."""

DONE = 0
FAULT = 1
BAD_INPUT = 2
SAID_NO = 3
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

MEANINGS = {
    DONE: "done",
    FAULT: "a fault of ours; a traceback shows where",
    BAD_INPUT: "bad input: one message says where, what was found, what was expected and what to do",
    SAID_NO: "a check that ran and said no: a certificate that does not hold, points of a sweep that failed, doctor",
    INTERRUPTED: "interrupted, by Ctrl-C or a signal to end",
}
