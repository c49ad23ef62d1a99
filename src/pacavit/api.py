"""The verbs of the command line as Python functions, with the same names and arguments."""

