"""The kernel benchmark checks before it times, and does not believe the impossible."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from bench import bench_kernels
from bench.bench_kernels import copy_bandwidth, interleave, main
from bench.kernel_ops import SIZES, kernel_operations, layer
from bench.operation import Operation, checked, directions
from vaekit_kernels import launch, reference

CPU = torch.device("cpu")


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


def test_without_a_card_it_says_so_and_prints_no_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["bench_kernels"])
    with pytest.raises(SystemExit, match="no CUDA device"):
        main()
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


def test_the_card_waits_until_the_calls_are_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a time would hold what the host takes for the call."""
    done: list[str] = []

    class Event:
        def __init__(self, **_: bool) -> None:
            pass

        def record(self) -> None:
            done.append("event")

        def elapsed_time(self, _: Event) -> float:
            return 3.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: done.append(f"wait {cycles:,}"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: done.append("read"))
    clock = object.__new__(bench_kernels.Clock)
    clock.flush = torch.ones(2)
    assert clock.cold(lambda: done.append("call")) == pytest.approx(3e-3)
    assert done == ["wait 16,777,216", "event", "call", "event", "read"]
    assert not clock.flush.any()
    assert clock.warm(lambda: None) == pytest.approx(3e-3 / bench_kernels.WARM_CALLS)


def test_a_wrong_kernel_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = lambda output, image, backend: reference.pixel_nll(output, image) + 1  # noqa: E731
    operation = Operation(**{**vars(small()), "op": wrong})
    monkeypatch.setattr(bench_kernels, "interleave", lambda *_: pytest.fail("it was timed"))
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    with pytest.raises(AssertionError, match="allowed"):
        bench_kernels.compare(None, operation, 1.0, 1)
    assert capsys.readouterr().out == ""


def test_both_directions_can_be_called_again_and_again() -> None:
    calls = directions(small(), reference.pixel_nll)
    assert list(calls) == ["forward", "backward"]
    for call in calls.values():
        call()
        call()
    samples = interleave(calls, lambda call: len(call()) + 1.0, rounds=4)
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
        assert rows[launch.FALLBACK] in bench_kernels.candidates(name)


def test_the_copy_is_counted_in_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_kernels, "interleave", lambda *_: {"copy": [0.5, 0.5, 9.0]})
    monkeypatch.setattr(bench_kernels, "COPY_BYTES", 8)
    for name in ("randint", "empty_like"):
        monkeypatch.setattr(torch, name, lambda *_, **__: None)
    assert copy_bandwidth(type("NoClock", (), {"cold": None})(), 3) == 32.0
