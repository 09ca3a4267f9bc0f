"""The noise of the torch definition is Triton's: one counter gives the same four words in both.

This is what lets a kernel draw its own noise and still be held to the torch path, value for value.
"""

from __future__ import annotations

import pytest
import torch

from vaekit_kernels.philox import WORD, philox4x32

triton = pytest.importorskip("triton", reason="there is no Triton for this platform")
tl = triton.language

ROWS = 16
TARGETS = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "sm_100": ("cuda", 100, 32),
    "gfx942": ("hip", "gfx942", 64),
}
# Integers have nothing to fuse, but Triton warns where nobody decides.
OPTIONS = {"enable_fp_fusion": False}
COUNTERS = {
    "zeros": (0, 0, 0, 0),
    "ones": (-1, WORD, WORD, WORD),
    "sweep": (3, 10_000, 0x3F800000, 2),
    "negative-key": (-(2**63), 7, 0x80000001, 5),
}


@triton.jit
def words_kernel(out_ptr, seed, step, label, stream, ROWS: tl.constexpr):
    offs = tl.arange(0, ROWS)
    zero = tl.zeros([ROWS], tl.int64)
    w0, w1, w2, w3 = tl.philox(
        seed,
        offs.to(tl.uint32),
        (zero + step).to(tl.uint32),
        (zero + label).to(tl.uint32),
        (zero + stream).to(tl.uint32),
    )
    tl.store(out_ptr + offs, w0.to(tl.int64))
    tl.store(out_ptr + ROWS + offs, w1.to(tl.int64))
    tl.store(out_ptr + 2 * ROWS + offs, w2.to(tl.int64))
    tl.store(out_ptr + 3 * ROWS + offs, w3.to(tl.int64))


def assert_same_words(counter: tuple[int, int, int, int], device: str) -> None:
    seed, step, label, stream = counter
    out = torch.full((4, ROWS), -1, dtype=torch.int64, device=device)
    words_kernel[(1,)](out, seed, step, label, stream, ROWS=ROWS, **OPTIONS)
    expected = philox4x32(seed, torch.arange(ROWS, device=device), step, label, stream)
    assert torch.equal(out, torch.stack(expected))


@pytest.mark.interpret
@pytest.mark.parametrize("name", COUNTERS)
def test_interpreted_words_are_the_definitions(name: str) -> None:
    from triton.runtime.interpreter import InterpretedFunction

    assert isinstance(words_kernel, InterpretedFunction), "TRITON_INTERPRET=1 is not set"
    assert_same_words(COUNTERS[name], "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("name", COUNTERS)
def test_words_on_the_card_are_the_definitions(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device")
    assert_same_words(COUNTERS[name], "cuda")


@pytest.mark.compile
@pytest.mark.parametrize("name", TARGETS)
def test_the_words_compile_for_every_target(name: str) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = dict.fromkeys(("seed", "step", "label", "stream"), "i64")
    source = ASTSource(
        fn=words_kernel,
        signature={"out_ptr": "*i64", **signature, "ROWS": "constexpr"},
        constexprs={"ROWS": ROWS},
    )
    built = triton.compile(source, target=GPUTarget(*TARGETS[name]), options=OPTIONS)
    binary = "cubin" if name.startswith("sm_") else "hsaco"
    assert len(built.asm[binary]) > 1000
