"""Which tests this process can run: a process either interprets Triton's kernels or compiles them.

Nothing is set here. TRITON_INTERPRET comes from the nox session `interpret`, because Triton reads
it while it is imported.
"""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-baseline",
        action="store_true",
        help="store what was measured as the new baseline (compile, determinism); read the diff",
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    marks = {mark.name for mark in item.iter_markers()}
    if marks & {"interpret", "compile", "gpu"} and importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed (there are wheels for Linux on x86-64 only)")
    interpreting = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
    if "interpret" in marks and not interpreting:
        pytest.skip("needs TRITON_INTERPRET=1 from the start: nox -s interpret")
    if marks & {"compile", "gpu"} and interpreting:
        pytest.skip("TRITON_INTERPRET is set, so this process cannot compile")
    if "gpu" in marks and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
