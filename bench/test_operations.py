"""Every operation on the CPU, on pytest-benchmark: checked, timed from cold memory, checked again.

`nox -s bench` times these (see `operations`). `nox -s tests` runs each once, small, with dynamo and
autograd of torch.compile but without the compiler of C++.

The timer is the process's clock, which on a CPU is right; `bench_kernels` has a card's own.
"""

from __future__ import annotations

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from bench.ceilings import beyond_cache
from bench.kernel_ops import SIZES, kernel_operations, layer
from bench.operation import ROTATED, Operation, checked, error, module_of_tests, turning
from vaekit.compiler import compiler_missing
from vaekit.host import keep_freed_memory

CPU = torch.device("cpu")
IMPLEMENTATIONS = ("reference", "torch", "compile")
WARMUP = 2
SIZE, SMALL = "a sweep", "small"


def operations(size: str) -> dict[str, Operation]:
    """Give every operation at a size of `kernel_ops.SIZES`, by its name without the size."""
    noise = module_of_tests("oracle").normals
    found = [*kernel_operations(CPU, (size,), noise), layer(SIZES[size], CPU)]
    return {operation.name.rpartition(" ")[0]: operation for operation in found}


def rows() -> list[tuple[str, str, str]]:
    """Name every row: its operation, direction and implementation."""
    return [
        (name, direction, implementation)
        for name, operation in operations(SMALL).items()
        for direction in ("forward", "backward")[: 2 if operation.backward_bytes else 1]
        for implementation in IMPLEMENTATIONS
    ]


# The compiler's own modules use what PyTorch itself has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
@pytest.mark.parametrize(("name", "direction", "implementation"), rows())
def test_operation(
    name: str,
    direction: str,
    implementation: str,
    benchmark: BenchmarkFixture,
    request: pytest.FixtureRequest,
) -> None:
    """Hold an implementation to its definition, time it, and hold it again at other values."""
    timed = not benchmark.disabled
    if timed and implementation == "compile" and compiler_missing():
        pytest.skip(compiler_missing())
    keep_freed_memory()  # as a sweep does
    operation = operations(SIZE if timed else SMALL)[name]
    run = operation.implementation(implementation, "inductor" if timed else "aot_eager")
    first, *_, last = sets = operation.rotated(ROTATED)
    checked(first, {implementation: run})
    flush = torch.empty(beyond_cache() if timed else 1, dtype=torch.uint8)

    def cold() -> None:
        # Written before every call, outside of its time.
        flush.add_(1)

    benchmark.pedantic(
        turning(sets, run)[direction],
        setup=cold,
        rounds=request.config.getoption("benchmark_min_rounds"),
        warmup_rounds=WARMUP,
    )
    moved, work = operation.work(direction)
    benchmark.extra_info.update(
        operation=name,
        size=operation.name.rpartition(" ")[2],
        direction=direction,
        implementation=implementation,
        bytes=moved,
        work=work,
        error=error(last, run, direction),
    )
