"""Every kernel and pinned configuration, compiled for cards that are not here: `nox -s compile`.

The interpreter cannot see a type error, a spill or a load that is not vectorised; these can. What
was measured is held to `compile_baseline.json`, per Triton version. After a change that is meant:

    python -m pytest -m compile --write-baseline

which also writes the table of `reports/kernels/resources.md`.
"""

from __future__ import annotations

import re

import pytest

pytest.importorskip("triton", reason="there is no Triton for this platform")

import triton

import compiler
from compiler import CASES, MODULES, TARGETS
from resources import TABLE, Measured, Resources, differences, load, store, table
from vaekit_kernels import launch

pytestmark = pytest.mark.compile

VERSION = triton.__version__
# Bytes of shared memory that a program can have; registers of a multiprocessor (or SIMD's share).
SHARED_LIMIT = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024, "gfx942": 65536}
REGISTER_LIMIT = {"sm_80": 255, "sm_90": 255, "sm_100": 255, "gfx942": 512}


@pytest.fixture(scope="module")
def measured(request: pytest.FixtureRequest) -> Measured:
    """Resources of everything, compiled once; with --write-baseline also stored."""
    found = compiler.measure_everywhere()
    if request.config.getoption("--write-baseline"):
        store(VERSION, found)
    return found


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_spills_or_uses_stack(measured: Measured, target: str) -> None:
    assert len(measured[target]) > len(CASES)
    bad = {name: row for name, row in measured[target].items() if row.spills or row.stack}
    assert not bad


@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel_fits(measured: Measured, target: str) -> None:
    for name, row in measured[target].items():
        assert row.shared <= SHARED_LIMIT[target], name
        assert 0 < row.registers < REGISTER_LIMIT[target], name


@pytest.mark.parametrize("target", TARGETS)
def test_resources_are_those_of_the_baseline(measured: Measured, target: str) -> None:
    baselines = load()
    if VERSION not in baselines:
        pytest.skip(f"there is no baseline for Triton {VERSION}, only for {', '.join(baselines)}")
    lines = differences(baselines[VERSION][target], measured[target])
    assert not lines, f"Triton {VERSION}, {target}:\n" + "\n".join(lines)


def test_the_reports_table_is_the_baselines() -> None:
    assert TABLE.read_text() == table(load())


def test_a_difference_is_said_in_a_line() -> None:
    row = Resources(registers=40, spills=0, stack=0, shared=1024, instructions=500, wide=4)
    worse = Resources(registers=48, spills=2, stack=0, shared=1024, instructions=500, wide=4)
    assert differences({"a": row}, {"a": row}) == []
    assert differences({"a": row}, {"a": worse}) == [
        "a: registers 40 -> 48 (+8), spills 0 -> 2 (+2)"
    ]
    assert differences({"a": row}, {"b": row}) == [
        "b: not in the baseline",
        "a: only in the baseline",
    ]


def test_the_measure_sees_spills() -> None:
    """A kernel that must spill: 512 values a thread, alive until their sum is known."""
    tl = triton.language

    @triton.jit
    def hungry_kernel(out_ptr, x_ptr, N: tl.constexpr):
        offs = tl.arange(0, N)
        x = tl.load(x_ptr + offs)
        tl.store(out_ptr + offs, x * tl.sum(x))

    arguments = {"out_ptr": compiler.FLOATS, "x_ptr": compiler.FLOATS, "N": 16384}
    options = {"num_warps": 1, "enable_fp_fusion": launch.FP_FUSION}
    built = compiler.build(compiler.Launch(hungry_kernel, arguments, options), "sm_90")
    (row,) = compiler.measure([built], "sm_90")
    assert row.spills > 0
    assert row.stack > 0


def test_every_kernel_and_every_pinned_row_is_compiled() -> None:
    kernels = {
        value.__name__.strip("_").removesuffix("_kernel")
        for module in MODULES
        for name, value in vars(module).items()
        if name.endswith("_kernel") and hasattr(value, "params")
    }
    assert len(kernels) == 13
    for target in TARGETS:
        made = {launch_.name for _, launch_ in compiler.launches(target)}
        assert made == kernels
    for rows in launch.PINNED.values():
        assert list(rows) == list(TARGETS)


def test_the_usual_cases_hold_every_kernel_in_every_precision() -> None:
    made = list(compiler.launches("sm_90", compiler.USUAL))
    every = list(compiler.launches("sm_90"))
    usual, all_of_them = (
        {(one.name, one.arguments.get("PRECISION")) for _, one in some} for some in (made, every)
    )
    assert usual == all_of_them


def test_a_pinned_row_decides_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = launch.Launch(rows=8, cols=256, warps=8)
    rows = dict(launch.PINNED["pixel_nll"]) | {"sm_80": changed}
    monkeypatch.setattr(launch, "PINNED", dict(launch.PINNED) | {"pixel_nll": rows})
    for target in ("sm_80", "sm_90"):
        made = dict(compiler.launches(target))["pixel_nll [gaussian]"]
        assert (made.arguments["BLOCK_P"] == 256) is (target == "sm_80")
        assert (made.options["num_warps"] == 8) is (target == "sm_80")


def test_the_flat_backward_pass_loads_and_stores_128_bits(measured: Measured) -> None:
    """Its point: rows of 441 are not aligned, the block of a model is. Two loads and a store."""
    for target, kernels in measured.items():
        row = launch.PINNED["pixel_nll_backward"][target]
        of_a_program = 4 * row.warps * (64 if target == "gfx942" else 32)
        assert kernels["pixel_nll_backward [gaussian]"].wide == 3 * row.cols // of_a_program


def test_offsets_of_models_are_computed_in_64_bits() -> None:
    """121 models of 128 x 441 are far from 2**31 values, 40,000 are not."""
    for name, launch_ in compiler.launches("sm_90"):
        if launch_.name == "render":
            continue  # its row numbers are 64-bit from the start
        text = compiler.build(launch_, "sm_90").asm["ttir"]
        wide = re.findall(r"arith\.extsi %\S+ : i32 to i64", text)
        assert wide, name


def test_fusion_is_decided_here_and_not_by_triton() -> None:
    for _, launch_ in compiler.launches("sm_90"):
        assert launch_.options["enable_fp_fusion"] is launch.FP_FUSION
