"""One operation at one size, as the benchmarks time it: implementations, work, and its check."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._functorch import config as functorch

Implementation = Callable[..., Any]
Timed = Callable[[], object]
# Sets of inputs that calls take turns with.
ROTATED = 3


@dataclass(frozen=True)
class Operation:
    """One op at one size.

    Attributes:
        name: op and size.
        pinned: names of its forward and backward rows in `launch.PINNED`.
        inputs: by name; those that require grad make it an operation with a backward pass.
        op: the project's own, which takes `backend`.
        definition: what defines it.
        forward_bytes, backward_bytes: what must be read and written once, in bytes.
        forward_work, backward_work: operations.
        oracle: the definition in float64 where the plain one draws float32 noise.
    """

    name: str
    pinned: tuple[str, ...]
    inputs: Mapping[str, Tensor]
    op: Implementation
    definition: Implementation
    forward_bytes: int
    backward_bytes: int = 0
    forward_work: int = 0
    backward_work: int = 0
    oracle: Implementation | None = None

    def implementation(self, name: str, compiler: str = "inductor") -> Implementation:
        """Give what a row times.

        Args:
            name: "reference", the definition; "compile", the definition through torch.compile;
                "torch" or "triton", the project's op.
            compiler: torch.compile's backend.
        """
        if name == "reference":
            return self.definition
        if name == "compile":
            # The graph of a backward pass that is timed again and again must keep its buffers.
            functorch.donated_buffer = False
            return torch.compile(self.definition, backend=compiler, dynamic=False)
        return partial(self.op, backend=name)

    def work(self, direction: str) -> tuple[int, int]:
        """Bytes and operations of the forward or the backward pass."""
        if direction == "forward":
            return self.forward_bytes, self.forward_work
        return self.backward_bytes, self.backward_work

    def rotated(self, count: int) -> list[Operation]:
        """Give the operation with several sets of inputs: the same values in other places.

        Results that are remembered from another call, and memory that still holds its inputs, are
        then of no use.
        """

        def turned(tensor: Tensor, by: int) -> Tensor:
            rolled = tensor.detach().roll(by, dims=-1 if tensor.ndim == 1 else 1)
            return rolled.requires_grad_(tensor.requires_grad)

        return [
            replace(self, inputs={name: turned(value, by) for name, value in self.inputs.items()})
            for by in range(count)
        ]


def module_of_tests(name: str) -> ModuleType:
    """Import one of the tests' own modules; tests are no package, so by their folder."""
    folder = str(Path(__file__).parents[1] / "tests")
    if folder not in sys.path:
        sys.path.append(folder)
    return __import__(name)


def checked(operation: Operation, implementations: Mapping[str, Implementation]) -> None:
    """Hold implementations to the definition by the tests' own rule; raises AssertionError."""
    checks = module_of_tests("checks")
    for name, run in implementations.items():
        # A program is compiled once, and would be again where the checker replaces `torch.empty`.
        compiled = name == "compile"
        with mock.patch.object(checks, "poisoned", nullcontext) if compiled else nullcontext():
            checks.assert_matches(
                run, operation.definition, operation.inputs, oracle=operation.oracle
            )


def error(operation: Operation, run: Implementation, direction: str) -> float:
    """Hold outputs or gradients to the tests' rule.

    Returns:
        The largest error against the definition in float64, over the largest value.

    Raises:
        AssertionError: it is more than the rule allows.
    """
    checks = module_of_tests("checks")
    control = checks.run(operation.definition, operation.inputs)
    cotangents = checks.random_like(control[0])
    oracle = operation.oracle or operation.definition
    exact = checks.run(oracle, checks.widen(operation.inputs), cotangents)
    inputs = operation.inputs
    if direction == "forward":
        # As it is timed: torch.compile makes another program where nothing is differentiated.
        inputs = {name: tensor.detach() for name, tensor in inputs.items()}
    found = checks.run(run, inputs, cotangents)
    if direction == "forward":
        trios = [dict(enumerate(outputs)) for outputs, _ in (found, exact, control)]
    else:
        trios = [gradients for _, gradients in (found, exact, control)]
    errors = []
    for name in trios[0]:
        a, b, c = (values[name] for values in trios)
        checks.compare(f"{direction} {name}", a, b, c, non_finite=False)
        errors.append(float((a.double() - b).abs().max() / b.abs().max()))
    return max(errors)


def turning(sets: Sequence[Operation], run: Implementation) -> dict[str, Timed]:
    """The calls to time, each of which takes the next of several sets of inputs."""
    made = [directions(operation, run) for operation in sets]

    def turned(direction: str) -> Timed:
        calls = itertools.cycle([calls[direction] for calls in made])
        return lambda: next(calls)()

    return {direction: turned(direction) for direction in made[0]}


def directions(operation: Operation, run: Implementation) -> dict[str, Timed]:
    """The calls to time: forward without a graph, backward through one that is kept."""
    plain = {name: tensor.detach() for name, tensor in operation.inputs.items()}
    calls: dict[str, Timed] = {"forward": partial(run, **plain)}
    if operation.backward_bytes:
        wanted = [tensor for tensor in operation.inputs.values() if tensor.requires_grad]
        result = run(**operation.inputs)
        outputs = [result] if isinstance(result, Tensor) else list(result)
        cotangents = [torch.randn_like(out) for out in outputs]
        calls["backward"] = lambda: torch.autograd.grad(
            outputs, wanted, cotangents, retain_graph=True
        )
    return calls
