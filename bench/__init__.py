"""Benchmarks: how each is timed, what it is timed against, and where its samples go."""
