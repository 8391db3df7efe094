"""The command line: arguments taken, the work called, what it found shown; `simulator.__main__` lists the commands.

What a command prints is in `simulator.commands`. Modules of work are imported inside the commands, so that each starts
with what it needs and nothing else.
"""
