"""Everything one runs here, each with its set-up: `python -m pip install nox`, then `nox -l`.

What follows `--` goes to the command: `nox -s sweep -- --preset smoke`, `nox -s tests -- -k probe`.
"""

from __future__ import annotations

import nox

nox.options.sessions = ["tests", "lint"]
nox.options.reuse_venv = "yes"

# Only these environments are pinned; an installed vaekit takes any torch that it can run with.
PINNED = ("-c", "constraints.txt")
GROUPS = nox.project.load_toml("pyproject.toml")
TEST = nox.project.dependency_groups(GROUPS, "test")
LINT = nox.project.dependency_groups(GROUPS, "lint")


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests that need neither a GPU nor Triton."""
    session.install(*PINNED, "-e", ".", *TEST)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check the formatting, the rules and the types."""
    session.install(*PINNED, "-e", ".", *LINT)
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("mypy", *session.posargs)


@nox.session(default=False)
def sweep(session: nox.Session) -> None:
    """Train, measure and report a sweep; the last line printed is the report's path."""
    session.install(*PINNED, ".")
    # The installed command: `python -m vaekit` would run the folder here instead.
    session.run("vaekit", "sweep", *session.posargs)


@nox.session(default=False)
def report(session: nox.Session) -> None:
    """Draw the report of a run again, or of two runs side by side: `-- RUN [RUN2]`."""
    session.install(*PINNED, ".")
    session.run("vaekit", "report", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Time training and single operations beside peers and ceilings, and write the page.

    `-- --quick` for less; `-- --against REF` compares the tree here with a commit or a stored run
    instead, and fails where it is slower; `-- --demonstrate` tries that gate.
    """
    session.install(*PINNED, "-e", ".[jax]", *TEST)
    session.run("python", "-m", "bench", *session.posargs)


@nox.session(default=False)
def soak(session: nox.Session) -> None:
    """Kill, interrupt and run for long, and print what came of it; then the same on Ray."""
    session.install(*PINNED, "-e", ".[ray]", *TEST)
    session.run("python", "-m", "bench.soak", *session.posargs)
    session.run("python", "-m", "pytest", "tests/test_launch.py")
    session.run("python", "-m", "pytest", "-k", "ray", "tests/test_resume.py")


@nox.session(default=False)
def oracles(session: nox.Session) -> None:
    """Train linear models to the end and hold them against their closed forms (a minute)."""
    session.install(*PINNED, "-e", ".", *TEST)
    session.run("python", "-m", "pytest", "-m", "oracles", *session.posargs)


@nox.session(default=False)
def mutants(session: nox.Session) -> None:
    """Plant known defects in a copy of the sources; a test must see every one: `-- NAME ...`."""
    session.install(*PINNED, "-e", ".", *TEST)
    session.run("python", "tests/plant.py", *session.posargs)


@nox.session(default=False)
def estimators(session: nox.Session) -> None:
    """Score the estimators of information on channels that are known, and store the table."""
    session.install(*PINNED, "-e", ".")
    session.run("python", "-m", "bench.bench_estimators", *session.posargs)


@nox.session(default=False)
def interpret(session: nox.Session) -> None:
    """Run the Triton kernels in the interpreter, on the CPU, against their torch definitions."""
    # A session of its own: a process either interprets Triton or compiles it, from import on. The
    # interpreter is Python, so each core runs tests of its own.
    session.install(*PINNED, "-e", ".", *TEST)
    session.run(
        "python",
        "-m",
        "pytest",
        "-m",
        "interpret",
        "--numprocesses=auto",
        *session.posargs,
        env={"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
    )


@nox.session(default=False)
@nox.parametrize("triton", ["3.9.0", "3.6.0"])
def compile(session: nox.Session, triton: str) -> None:
    """Compile the Triton kernels for GPUs that need not be here, with two versions of Triton."""
    session.install(*PINNED, "-e", ".", *TEST)
    # Past the pin, and past the Triton that a CUDA torch asks for: nothing here launches a kernel.
    session.install("--no-deps", f"triton=={triton}")
    session.run("python", "-m", "pytest", "-m", "compile", *session.posargs)


@nox.session(default=False, venv_params=["--system-site-packages"])
def gpu(session: nox.Session) -> None:
    """Run the tests that need a CUDA device, with the machine's own torch and Triton.

    Nothing is pinned: a torch that drives this machine's card is not replaced. It must be installed
    where the Python that nox makes environments from looks for packages, not in a virtual
    environment that nox itself lives in. On such a machine without access to a package index run
    `python -m pytest -m gpu` directly.
    """
    session.install("-e", ".", *TEST)
    session.run("python", "-m", "pytest", "-m", "gpu", *session.posargs)
