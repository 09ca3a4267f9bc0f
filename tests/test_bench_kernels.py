"""The kernel benchmark checks before it times, and does not believe the impossible."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from bench import bench_kernels, block_sizes, clock
from bench.clock import Clock
from bench.errors import BenchError
from bench.kernel_ops import SIZES, kernel_operations, layer
from bench.operation import ROTATED, Operation, Timed, checked, directions, error
from bench.timing import interleave
from bench_samples import CEILINGS
from vaekit_kernels import launch, reference

CPU = torch.device("cpu")
NO_CLOCK = SimpleNamespace(cold="cold", warm="warm")


def small() -> Operation:
    return Operation(
        name="small",
        pinned=(),
        inputs={"output": torch.randn(4, 3, 5).requires_grad_(), "image": torch.rand(2, 3, 5)},
        op=lambda output, image, backend: reference.pixel_nll(output, image),
        definition=reference.pixel_nll,
        forward_bytes=1,
        backward_bytes=1,
    )


@pytest.mark.parametrize("module", [bench_kernels, block_sizes])
def test_without_a_card_it_says_so_and_prints_no_figure(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench"])
    with pytest.raises(SystemExit, match="no CUDA device"):
        module.main()
    assert capsys.readouterr().out == ""


def test_without_a_card_or_triton_the_page_has_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = bench_kernels.measure_kernels(quick=True)
    assert "no CUDA device" in found["skipped"]["kernels on a card"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = bench_kernels.measure_kernels(quick=True)
    assert found == {"skipped": {"kernels on a card": "there is no Triton"}}


def test_a_wrong_implementation_is_refused_before_any_timing() -> None:
    checked(small(), {"right": reference.pixel_nll})
    with pytest.raises(AssertionError, match="allowed"):
        checked(small(), {"wrong": lambda output, image: 1.01 * reference.pixel_nll(output, image)})


def test_a_definition_that_cannot_be_compiled_has_its_reason() -> None:
    """Torch 2.11 makes no kernel of the generator's integers: that row goes without its peer."""

    def broken(words: str) -> Callable[..., None]:
        def run(**_: torch.Tensor) -> None:
            raise TorchDynamoException(words)

        return run

    assert bench_kernels.refused(small(), reference.pixel_nll) == ""
    assert bench_kernels.refused(small(), broken("out of range\nand more")) == "out of range"
    inner = "Traceback:\n  line 3\nOverflowError: too large\n\nSet a variable for more"
    outer = f"SubprocException: An exception occurred in a subprocess:\n\n{inner}"
    assert bench_kernels.refused(small(), broken(outer)) == "OverflowError: too large"


def test_a_program_that_nothing_else_builds_is_asked_for_too() -> None:
    """Where nothing is differentiated, and backwards."""

    class Unbuilt(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, output: torch.Tensor) -> torch.Tensor:
            return output.clone()

        @staticmethod
        def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
            raise TorchDynamoException("no backward")

    def forward_only(output: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        return Unbuilt.apply(output)

    def trained_only(output: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        if not output.requires_grad:
            raise TorchDynamoException("no forward")
        return output.clone()

    assert bench_kernels.refused(small(), forward_only) == "no backward"
    assert bench_kernels.refused(small(), trained_only) == "no forward"


def test_the_noise_of_the_check_is_drawn_once_for_the_same_labels() -> None:
    drawn: list[int] = []

    def noise(seeds: torch.Tensor, *_: object) -> torch.Tensor:
        drawn.append(len(seeds))
        return seeds.double()

    draw, labels = block_sizes.remembered(noise), [torch.arange(4)] * 3
    first = draw(*labels, 0, 2, 9)
    assert draw(*(label.clone() for label in labels), 0, 2, 9) is first
    draw(*labels, 1, 2, 9)
    draw(labels[0] + 1, *labels[1:], 0, 2, 9)
    assert drawn == [4, 4, 4]


def test_the_card_waits_until_the_calls_are_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a time would hold what the host takes for the call."""
    done, late = list[str](), list[bool]()

    class Event:
        def __init__(self, **_: bool) -> None:
            pass

        def record(self) -> None:
            done.append("event")

        def query(self) -> bool:
            return bool(late) and late.pop()

        def elapsed_time(self, _: Event) -> float:
            return 3.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: done.append(f"wait {cycles:,}"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("read"))
    timer = object.__new__(Clock)
    timer.flush, timer.head_start = torch.ones(2), clock.HEAD_START
    assert timer.cold(lambda: done.append("call")) == pytest.approx(3e-3)
    assert done == ["wait 16,777,216", "event", "call", "event", "read"]
    assert not timer.flush.any()
    assert timer.warm(lambda: None) == pytest.approx(3e-3 / clock.WARM_CALLS)
    done.clear()
    late[:] = [False, True]
    timer.warm(lambda: None)
    assert [line for line in done if "wait" in line] == ["wait 16,777,216", "wait 33,554,432"]
    # And stays so.
    late[:] = [True] * 9
    with pytest.raises(BenchError, match="a call waits for the card"):
        timer.cold(lambda: None)
    assert timer.head_start == 2 * clock.LONGEST


def test_a_wrong_kernel_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = lambda output, image, backend: reference.pixel_nll(output, image) + 1  # noqa: E731
    operation = Operation(**{**vars(small()), "op": wrong})
    monkeypatch.setattr(bench_kernels, "interleave", lambda *_, **__: pytest.fail("it was timed"))
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    with pytest.raises(AssertionError, match="allowed"):
        bench_kernels.compare(NO_CLOCK, operation, CEILINGS, 1)
    assert capsys.readouterr().out == ""


def test_a_row_has_its_roof_its_error_and_the_kernel_beside_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cold calls of a name take turns with sets of inputs, warm ones are of one set."""

    def timed(
        calls: dict[str, Timed], rounds: int, warmup: int, timer: str
    ) -> dict[str, list[float]]:
        for call in calls.values():
            found = [call() for _ in range(3)]
            values = [one if isinstance(one, torch.Tensor) else one[0] for one in found]
            assert torch.equal(values[0], values[1]) == (timer == "warm")
            assert torch.equal(values[0], values[2]) == (timer == "warm")
        return {name: [2.0 + place] * rounds for place, name in enumerate(calls)}

    stances: list[str] = []
    held: list[Operation] = []

    def kept(stance: str) -> AbstractContextManager[None]:
        stances.append(stance)
        return nullcontext()

    def known(operation: Operation, run: Callable[..., Any], direction: str) -> float:
        held.append(operation)
        return error(operation, run, direction)

    monkeypatch.setattr(torch.compiler, "set_stance", kept)
    monkeypatch.setattr(bench_kernels, "error", known)
    monkeypatch.setattr(bench_kernels, "interleave", timed)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    operation = replace(small(), forward_bytes=100, backward_bytes=50, forward_work=1500)
    rows = bench_kernels.compare(NO_CLOCK, operation, CEILINGS, 5)
    named = [(row["direction"], row["implementation"]) for row in rows]
    names = ("triton", "compile", "triton (A/A)")
    assert named == [(way, name) for way in ("forward", "backward") for name in names]
    shares = [row["share_of_roof"] for row in rows]
    assert shares == pytest.approx([0.75, 0.5, 0.375, 0.25, 0.5 / 3, 0.125])
    assert [bench_kernels.beside_the_kernel(row, rows)[0] for row in rows] == [1.0, 1.5, 2.0] * 2
    assert all(0 <= row["error"] < 1e-5 for row in rows)
    # At values that were not the first to be checked.
    last = operation.rotated(ROTATED)[-1].inputs["image"]
    assert len(held) == 6
    assert all(torch.equal(each.inputs["image"], last) for each in held)
    assert stances == ["fail_on_recompile"] * 2
    assert capsys.readouterr().out.count("small  ") == 6


def test_the_forward_that_is_checked_is_the_one_that_is_timed() -> None:
    """Torch.compile makes one program where gradients are asked for, and another where not."""

    def wanting(**inputs: torch.Tensor) -> torch.Tensor:
        asked.append(any(tensor.requires_grad for tensor in inputs.values()))
        return reference.pixel_nll(**inputs)

    for direction, expected in (("forward", [False]), ("backward", [True])):
        asked: list[bool] = []
        assert error(small(), wanting, direction) < 1e-5
        assert asked == expected


def test_a_time_below_the_roof_stops_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        bench_kernels, "interleave", lambda calls, *_, **__: {name: [0.5] for name in calls}
    )
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    with pytest.raises(BenchError, match="cannot be right"):
        bench_kernels.compare(NO_CLOCK, replace(small(), forward_bytes=100), CEILINGS, 1)


def test_both_directions_can_be_called_again_and_again() -> None:
    calls = directions(small(), reference.pixel_nll)
    assert list(calls) == ["forward", "backward"]
    for call in calls.values():
        call()
        call()
    samples = interleave(calls, rounds=4, timer=lambda call: len(call()) + 1.0)
    assert set(samples["forward"]) == {5.0}
    assert {name: len(seconds) for name, seconds in samples.items()} == {
        "forward": 4,
        "backward": 4,
    }


def test_the_bytes_are_those_of_the_tensors() -> None:
    """Each tensor once: what comes in, what goes out, and their gradients."""
    for operation in [*kernel_operations(CPU), layer(SIZES["small"], CPU)]:
        inputs = [
            tensor
            for name, tensor in operation.inputs.items()
            if tensor.is_floating_point() and name != "mu"
        ]
        result = operation.definition(**operation.inputs)
        outputs = [result] if isinstance(result, torch.Tensor) else list(result)
        count = sum(tensor.numel() for tensor in [*inputs, *outputs])
        assert operation.forward_bytes == 4 * count
        if operation.backward_bytes:
            grads = sum(tensor.numel() for tensor in inputs if tensor.requires_grad)
            assert operation.backward_bytes == 4 * (count + grads)
        assert all(tensor.float().std() > 0 for tensor in operation.inputs.values())


def test_no_two_sets_of_inputs_hold_the_same_values_in_the_same_places() -> None:
    for operation in kernel_operations(CPU, ["small"]):
        first, second = operation.rotated(2)
        for name, value in first.inputs.items():
            turned = second.inputs[name]
            assert torch.equal(value.flatten().sort()[0], turned.flatten().sort()[0])
            assert value.numel() == 1 or not torch.equal(value, turned)
            assert turned.requires_grad == value.requires_grad


def test_every_row_to_sweep_has_candidates_and_the_pinned_one_is_among_them() -> None:
    for name in {
        name for operation in kernel_operations(CPU, ["small"]) for name in operation.pinned
    }:
        rows = launch.PINNED[name]
        assert rows[launch.FALLBACK] in block_sizes.candidates(name)


def test_every_candidate_is_checked_and_the_best_one_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Block sizes that are pinned elsewhere are put in for the time of a candidate alone."""
    before, seen = launch.PINNED["pixel_nll"], list[launch.Launch]()

    def timed(calls: dict[str, Timed], *_: int, timer: str) -> dict[str, list[float]]:
        assert (list(calls), timer) == (["triton"], "cold")
        seen.append(launch.PINNED["pixel_nll"]["sm_90"])
        return {"triton": [4.0 if seen[-1] == block_sizes.candidates("pixel_nll")[3] else 5.0]}

    monkeypatch.setattr(launch, "architecture", lambda device: "sm_90")
    monkeypatch.setattr(block_sizes, "interleave", timed)
    operation = replace(small(), pinned=("pixel_nll",), forward_bytes=100)
    rows = block_sizes.sweep(NO_CLOCK, operation, CEILINGS, 1)
    assert seen == block_sizes.candidates("pixel_nll")
    assert launch.PINNED["pixel_nll"] == before
    assert [row["share"] for row in rows].count(0.25) == 1
    best = seen[3]
    said = capsys.readouterr().out
    assert f"25% of its roof: {best.rows} x {best.cols}, {best.warps} warps" in said
    wrong = lambda output, image, backend: reference.pixel_nll(output, image) + 1  # noqa: E731
    with pytest.raises(AssertionError, match="allowed"):
        block_sizes.sweep(NO_CLOCK, replace(operation, op=wrong), CEILINGS, 1)
