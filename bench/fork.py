"""Start workers that lie alike in memory, one for each of some trees.

    python fork.py WORKER [TREE QUESTIONS ANSWERS]... -- [BENCHMARK ...]

Where a process's libraries and heap happen to lie moves its times, and so does the core that it
gets: those of a shared machine are not equally fast, and a process stays where it is. So one
process loads torch on one core, and forks those that are compared: what they share, the seed of
Python's hashes among it, is the same in all of them, and they take turns on that core, with one
thread each. On two cores of an AMD EPYC 12 sets of 36 rounds scattered by 6.9 % where processes had
both, and by 0.3 % on one, in turn. QUESTIONS and ANSWERS are file descriptors, which become the
worker's stdin and stdout; WORKER is run with TREE and the benchmarks, in TREE's folder. When this
process's own stdin ends, the workers are killed.
"""

import os
import runpy
import signal
import sys
import warnings

# Before torch counts the cores.
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

import torch  # noqa: F401

# The other threads are those of numpy's OpenBLAS, which ends them before a fork by itself.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)


def main() -> None:
    """Fork, and wait for the end of stdin; each worker returns here at its own end too."""
    end = sys.argv.index("--")
    worker, *told = sys.argv[1:end]
    trees = [told[start : start + 3] for start in range(0, len(told), 3)]
    workers = []
    while trees:
        tree, questions, answers = trees.pop(0)
        workers.append(os.fork())
        if workers[-1] == 0:
            os.dup2(int(questions), 0)
            os.dup2(int(answers), 1)
            # An end that another worker kept open would hide that this one has ended.
            for left in [(tree, questions, answers), *trees]:
                for descriptor in left[1:]:
                    os.close(int(descriptor))
            os.chdir(tree)
            sys.argv = [worker, tree, *sys.argv[end + 1 :]]
            runpy.run_path(worker, run_name="__main__")
            return
        os.close(int(questions))
        os.close(int(answers))
    # It ends however whoever asks has ended, even where a worker is at something without end.
    sys.stdin.buffer.read()
    for number in workers:
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)


if __name__ == "__main__":
    main()
