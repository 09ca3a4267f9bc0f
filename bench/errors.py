"""The error of a benchmark that cannot be made, or whose times cannot be right."""


class BenchError(Exception):
    """What was asked for cannot be done: exit code 2, since 1 says that the tree is slower."""
