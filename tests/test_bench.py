"""The benchmarks' own machinery: peers that agree, a check that can fail, statistics that hold."""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, pairwise, permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import DeviceType
from torch.autograd.profiler import profile, record_function

import resources
from bench import (
    bench_training,
    ceilings,
    comparison,
    compiled,
    curves,
    eager,
    parts,
    peers,
    provenance,
    static,
    storage,
    timing,
)
from bench.bench_estimators import measure, table
from bench.ceilings import believed, step_flops
from bench.eager import stacked_autograd
from bench.errors import BenchError
from bench.jax_peer import jax_elsewhere
from bench.memory import beyond_one, measure_memory
from bench.peers import COMPILED, PEERS, absent, check, still_agree
from bench.problem import Problem, default_problem
from bench.timing import interleave, orders, ratio
from vaekit.config import SweepConfig
from vaekit.estimators import ESTIMATORS, critic
from vaekit.estimators.channels import gaussian_channel
from vaekit.model import Architecture


def small(hidden: tuple[int, ...] = (16, 8)) -> Problem:
    setup = SweepConfig(mu=(0.0,), beta=(0.5, 1.0, 4.0), steps=1, hidden=hidden, tile=2, batch=16)
    return Problem(setup, steps=5)


@pytest.mark.parametrize("name", [*PEERS])
def test_every_peer_trains_to_the_same_losses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled ones without the compiler of C++, whose absence is no reason to skip them."""
    if name.startswith("JAX") and importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    problem = small()
    blocks = {"plain": stacked_autograd(problem), name: PEERS[name](problem)}
    errors, seconds = check(problem, blocks)
    assert errors[name] <= 1e-4
    assert seconds[name] > 0
    with torch.compiler.set_stance("fail_on_recompile"):
        still_agree(problem, blocks)


def test_a_peer_that_trains_to_something_else_is_refused() -> None:
    problem = small()
    block = stacked_autograd(problem)
    with pytest.raises(BenchError, match="lazy"):
        check(problem, {"lazy": lambda: block() * 1.001})
    with pytest.raises(BenchError, match="broken"):
        check(problem, {"broken": lambda: torch.full((3,), torch.nan)})
    first = block()
    for _ in range(20):
        block()
    with pytest.raises(BenchError, match="cached"):
        still_agree(problem, {"honest": block, "cached": lambda: first})


def test_a_peer_that_is_left_out_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "compiler_missing", lambda: "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert absent(quick=False) == {"JAX vmap + scan": "jax is not installed"}
    assert set(absent(quick=True)) == {"JAX vmap + scan", *COMPILED}
    monkeypatch.setattr(peers, "compiler_missing", lambda: "no compiler")
    assert absent(quick=False)["stacked + torch.compile"] == "no compiler"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there")
    assert set(absent(quick=False)) == set(COMPILED)


def test_every_function_is_timed_every_round_in_turn() -> None:
    calls: list[str] = []
    functions = {name: lambda name=name: calls.append(name) for name in "abc"}
    samples = interleave(functions, rounds=3, warmup=1)
    assert {name: len(seconds) for name, seconds in samples.items()} == {"a": 3, "b": 3, "c": 3}
    assert len(calls) == 12
    assert {"".join(sorted(calls[start : start + 3])) for start in range(0, 12, 3)} == {"abc"}


@pytest.mark.parametrize(("names", "rounds"), [("abc", 8), ("abcdefgh", 24), ("abcdefgh", 6)])
def test_nothing_is_timed_right_after_itself_and_neighbours_change(names: str, rounds: int) -> None:
    found = list(orders(names, rounds))
    assert found == list(orders(names, rounds))
    assert all(sorted(order) == list(names) for order in found)
    pairs = Counter(pairwise(chain.from_iterable(found)))
    assert not any((name, name) in pairs for name in names)
    others = [pairs[a, b] for a, b in permutations(names, 2)]
    even = (rounds * len(names) - 1) / len(others)
    assert even / 2 - 1 < min(others) <= max(others) < 1.5 * even + 1


@pytest.mark.parametrize("names", ["a", "ab"])
def test_one_or_two_are_each_timed_right_after_themselves(names: str) -> None:
    """What is not timed brings each one's own memory into cache, whoever was there before."""
    calls: list[str] = []
    functions = {name: lambda name=name: calls.append(name) for name in names}
    interleave(functions, rounds=6)
    assert calls[::2] == calls[1::2]
    assert {calls.count(name) for name in names} == {14}


def test_a_machine_is_its_processor_and_its_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "device_name", lambda device: f"A {device.type.upper()} (2)")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert storage.machine_slug() == "a-cpu-2"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert storage.machine_slug() == "a-cpu-2-a-cuda-2"
    assert provenance.provenance("made")["machine"] == "A CPU (2), A CUDA (2)"


def test_every_version_that_matters_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"g++": "g++ 13\nFree", "nvidia-smi": "570.1\n570.1", "ptxas": "ptxas\nV12.8"}
    monkeypatch.setattr(provenance, "said", lambda name, *_: answers.get(Path(name).name, ""))
    packages = {"jax": "0.7", "jaxlib": "0.7.1", "scipy": "1.16", "pytest-benchmark": "5.2"}
    monkeypatch.setattr(provenance, "version", packages.__getitem__)
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: SimpleNamespace(origin="/there/__init__.py")
    )
    found = packages | {"C++ compiler": "g++ 13", "driver": "570.1", "CUDA": "12.8"}
    assert provenance.tools() == found | {"ptxas": "V12.8"}
    answers.clear()
    monkeypatch.setattr(torch.version, "cuda", None)
    assert provenance.tools()["driver"] == provenance.tools()["CUDA"] == "absent"
    assert provenance.provenance("made")["versions"].keys() > found.keys()


def test_the_interval_of_a_ratio_covers_the_truth() -> None:
    """Over 200 pairs of noisy runs whose true ratio is 1.1, about 95 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        drift = rng.lognormal(0.0, 0.3, 30)  # met by both of a pair, so it cancels
        slow = 1.1 * drift * rng.lognormal(0.0, 0.02, 30)
        fast = drift * rng.lognormal(0.0, 0.02, 30)
        mid, low, high = ratio(list(slow), list(fast), draws=500)
        assert low <= mid <= high
        covered += low <= 1.1 <= high
    assert covered >= 180


def test_an_engine_that_is_quicker_than_its_floor_stops_the_benchmark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        curves, "interleave", lambda *_, **__: {"vaekit": [1.0] * 5, "floor": [1.1] * 5}
    )
    with pytest.raises(BenchError, match="cannot be right"):
        curves.curve("the width", 5, {"16, 8": small})


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_threads_of_others_may_settle_before_a_time_on_a_cpu(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []
    monkeypatch.setattr(timing, "synchronize", lambda device: None)
    monkeypatch.setattr("time.sleep", done.append)
    assert timing.on_the_host(torch.device(device), lambda: done.append("call")) >= 0
    assert done == [timing.SETTLE, "call"][device == "cuda" :]


def test_a_block_that_a_card_captures_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card's is captured at its second call; on a CPU the first call was all that is special."""
    assert [timing.untimed(torch.device(name)) for name in ("cpu", "cuda")] == [0, 1]
    asked: list[object] = []
    for module in (curves, comparison):
        monkeypatch.setattr(module, "untimed", lambda device: f"those of {device}")
        monkeypatch.setattr(
            module, "interleave", lambda blocks, rounds, warmup, device: asked.append(warmup)
        )
    with pytest.raises(AttributeError):
        curves.curve("the width", 5, {"16, 8": small})
    with pytest.raises(AttributeError):
        comparison.compare(small(), {"vaekit": PEERS["vaekit"](small())}, 5, {}, {})
    assert asked == ["those of cpu"] * 2


def test_memory_is_counted_beyond_a_stack_of_one() -> None:
    curve = {"1": {"peak": 109, "planned": 8}, "3": {"peak": 127, "planned": 24}}
    assert beyond_one(curve) == {"3": (18, 16)}


def test_a_larger_stack_takes_more_memory_by_about_what_is_planned() -> None:
    """Processes of their own; the allowance is the allocator's and the libraries' own."""
    found = {}
    for models in (1, 40):
        command = [sys.executable, "-m", "bench.memory", str(models), "cpu"]
        found[str(models)] = json.loads(
            subprocess.run(command, capture_output=True, check=True).stdout
        )
    grown, planned = beyond_one(found)["40"]
    assert 0.5 * planned < grown < 1.5 * planned


def test_a_process_that_fails_leaves_no_table_of_memory(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(subprocess.CalledProcessError, match=r"bench\.memory"):
        measure_memory(torch.device("meta"), quick=True)
    assert "measured" not in capfd.readouterr().out


def test_the_parts_of_a_step_are_all_of_it() -> None:
    with profile(use_kineto=False) as watched:
        with record_function(parts.IMAGES):
            x = torch.rand(64, 64)
        with record_function(parts.STEP):
            torch.bmm(x[None], x[None]).add_(1.0)
    events = watched.function_events
    found = parts.split(events, steps=2)
    assert list(found) == list(parts.PARTS)
    assert sum(found.values()) == pytest.approx(
        sum(event.self_cpu_time_total for event in events) * 1e-6 / 2
    )
    assert found[parts.ADAM] == found[parts.NOISE] == 0
    assert all(found[name] > 0 for name in (parts.IMAGES, parts.PRODUCTS, parts.OTHERS, parts.STEP))


def test_a_cards_time_is_told_by_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def event(name: str, us: float, where: DeviceType = DeviceType.CUDA) -> SimpleNamespace:
        return SimpleNamespace(name=name, device_type=where, self_device_time_total=us)

    monkeypatch.setattr(parts, "KERNELS", 1)
    first = [event("adam", 2.0), event("gemm", 4.0), event("gemm", 4.0), event("copy", 1.0)]
    second = [event("gemm", 6.0), event("aten::mm", 9.0, DeviceType.CPU)]
    found = parts.by_kernel([first, second], steps=2)
    assert list(found) == ["gemm", parts.OTHERS]
    assert found["gemm"] == pytest.approx([4e-6, 3e-6])
    assert found[parts.OTHERS] == pytest.approx([1.5e-6, 0.0])


def test_kernels_of_one_name_are_one_row() -> None:
    found = parts.by_short_name(
        {
            "void at::native::copy<4, at::Float>(int)": [1.0, 2.0],
            "void at::native::(anonymous namespace)::copy<2>(at::Size<8>)": [3.0, 3.0],
            "void copy<float>(int)": [0.0, 1.0],
            "at::native::fill(at::Tensor)": [9.0, 9.0],
            "weights_kernel": [5.0, 6.0],
            parts.OTHERS: [7.0, 8.0],
        }
    )
    assert found == {
        "copy": [4.0, 6.0],
        "fill": [9.0, 9.0],
        "weights_kernel": [5.0, 6.0],
        parts.OTHERS: [7.0, 8.0],
    }


def test_everything_is_measured_on_the_one_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report that stands under a card's name must not be of the CPU."""
    device = torch.device("meta")
    asked: list[str] = []

    def note(name: str) -> Callable[..., dict[str, object]]:
        def called(*given: object, **_: object) -> dict[str, object]:
            assert device in given
            asked.append(name)
            return {}

        return called

    rates = {"read_bytes_per_second": 1.0, "copy_bytes_per_second": 1.0, "seconds_per_call": 1.0}
    rates |= {"product_flops_per_second": {"float32": 1.0, "float32, default": 1.0}}
    ceilings_of: list[object] = []

    def measured(where: torch.device, before: object = None) -> dict[str, Any]:
        ceilings_of.append((where, before))
        return rates | {"measured": len(ceilings_of)}

    monkeypatch.setattr(bench_training, "measure_ceilings", measured)
    names = ("measure_card", "compare_peers", "measure_curves", "measure_parts")
    names += ("measure_sweeps", "measure_memory")
    for name in names:
        monkeypatch.setattr(bench_training, name, note(name))
    found = bench_training.run(device, quick=True)
    assert asked == list(names)
    # Once more at the end, with what was measured at the beginning.
    assert ceilings_of == [(device, None), (device, rates | {"measured": 1})]
    assert found["ceilings"]["measured"] == 2
    for name in ("point", "curve"):
        monkeypatch.setattr(curves, name, lambda *given, **_: given)
    found = curves.measure_curves(2, 3, device, quick=True)
    assert len(found) == 3
    for _, _, problems, *beside in found.values():
        assert all(device in make() for make in problems.values())
        assert not any(beside)
    monkeypatch.setattr(curves, "elsewhere", lambda where: {"JAX vmap + scan": f"not on {where}"})
    *_, beside = curves.measure_curves(2, 3, device, quick=False)["scaling"]
    assert beside == ["stacked autograd"]


def test_jax_that_does_not_see_the_card_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there")
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(default_backend=lambda: "cpu"))
    cuda = torch.device("cuda")
    assert "computes on cpu" in jax_elsewhere(cuda)["JAX vmap + scan"]
    assert not jax_elsewhere(torch.device("cpu"))
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(default_backend=lambda: "gpu"))
    assert not jax_elsewhere(cuda)


def test_every_part_of_the_engines_step_is_seen() -> None:
    found = parts.watch(1)["seconds"]
    assert all(seconds[0] > 0 for seconds in found.values())


def test_a_curve_has_the_engine_and_the_floor_at_every_point(
    capsys: pytest.CaptureFixture[str],
) -> None:
    problems = {
        name: lambda width=width: small(hidden=(width, 8))
        for name, width in (("16, 8", 16), ("4, 8", 4))
    }
    found = curves.curve("the width", 3, problems)
    assert list(found["curve"]) == ["16, 8", "4, 8"]
    for row in found["curve"].values():
        middle = statistics.median(row["seconds"]["floor"])
        assert row["floor_ms"] == pytest.approx(1e3 * middle / 15)
        assert row["steps"] == 5
        assert curves.costs(row)["floor"] == pytest.approx(row["floor_ms"])
        assert len(row["seconds"]["vaekit"]) == 3
    assert "4, 8" in capsys.readouterr().out


def test_peers_of_a_curve_are_held_to_the_same_losses_and_timed_in_the_same_rounds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held: list[list[str]] = []
    for name in ("check", "still_agree"):
        whole = getattr(curves, name)
        monkeypatch.setattr(
            curves,
            name,
            lambda task, blocks, whole=whole: held.append(list(blocks)) or whole(task, blocks),
        )
    found = curves.curve("the width", 3, {"16, 8": small}, ["one after another"])["curve"]
    seconds = found["16, 8"]["seconds"]
    assert curves.peers_of(found) == ["one after another"]
    assert held == [["vaekit", "one after another", "vaekit again (A/A)"]] * 2
    assert {len(each) for each in seconds.values()} == {3}
    middle = 1e3 * statistics.median(seconds["one after another"]) / (5 * small().models)
    assert curves.per_model_step(seconds, 5 * small().models)["one after another"] == middle
    shown = capsys.readouterr().out.splitlines()
    assert shown[-2].endswith("one after another")
    assert shown[-1].endswith(f"{middle:.3g}")
    wrong = lambda task: lambda: torch.ones(task.models)  # noqa: E731
    monkeypatch.setitem(curves.PEERS, "one after another", wrong)
    with pytest.raises(BenchError, match="all train the same models"):
        curves.curve("the width", 3, {"16, 8": small}, ["one after another"])


def test_blocks_of_a_curve_are_about_as_much_work_as_the_default_problems() -> None:
    made = partial(curves.point, 5, torch.device("cpu"))
    assert [made(models=models).steps for models in (1, 2, 4, 11, 121)] == [55, 28, 14, 5, 2]
    # Beside peers no fewer: one copies the state of all models once a block.
    few = [curves.models_point(5, torch.device("cpu"), models).steps for models in (4, 121)]
    assert few == [14, 5]
    assert made(batch=32).steps == 20
    wide, narrow = (made(hidden=hidden).steps for hidden in ((1024, 512), (64, 32)))
    assert (wide, narrow) == (2, 25)
    assert made(batch=32).described() == default_problem(11, 20, batch=32).described()


def test_the_floor_touches_no_more_memory_than_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each layer reads what the one before it wrote, but for the images and the latents."""
    made, rand = list[torch.Size](), torch.rand

    def counted(*shape: int) -> torch.Tensor:
        made.append(rand(*shape).shape)
        return rand(*shape)

    task = small()
    layers = len(task.stack().layers)
    monkeypatch.setattr(torch, "rand", counted)
    block = curves.floor(task)
    assert len(made) == 2 * layers + 2 * 2
    monkeypatch.undo()
    assert block().isfinite().all()


def test_a_peer_with_vaekits_products_takes_its_library(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    @contextmanager
    def fast(device: torch.device) -> Iterator[None]:
        seen.append(f"{device} in")
        yield
        seen.append("out")

    monkeypatch.setattr(eager, "fast_products", fast)
    plain = stacked_autograd(small())()
    assert not seen
    assert torch.equal(PEERS[peers.STACKED_FAST](small())(), plain)
    assert seen == ["cpu in", "out"]
    left_out = peers.elsewhere(torch.device("cuda"))
    assert {peers.STACKED_FAST, peers.OURS_COMPILED} <= left_out.keys()
    assert not peers.elsewhere(torch.device("cpu"))


def test_the_work_of_a_step_is_the_designs() -> None:
    """197.5 MFLOP for the default network and a batch of 128."""
    config = default_problem(1, 1).config
    work = step_flops(Architecture.of(config), config.batch)
    assert work == pytest.approx(197.5e6, rel=1e-3)


def test_a_time_that_the_machine_cannot_do_is_an_error() -> None:
    assert believed(1.0, 2.0) == pytest.approx(0.5)
    for impossible in (0.9, float("nan")):
        with pytest.raises(BenchError, match="cannot be right"):
            believed(1.0, impossible)


def test_the_ceilings_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of a quarter of the bytes and products of a hundredth of the work, but real ones."""
    monkeypatch.setattr(ceilings, "beyond_cache", lambda device: 2**22)
    monkeypatch.setitem(ceilings.PRODUCT, "cpu", 128)
    found = ceilings.measure_ceilings(rounds=3)
    rates = found["product_flops_per_second"]
    assert rates["float32"] == 2 * 128**3 / min(found["seconds"]["float32"])
    assert found["copy_bytes_per_second"] == 2**23 / min(found["seconds"]["copy"])
    assert found["read_bytes_per_second"] == 2**22 / min(found["seconds"]["read"])
    assert 0 < found["seconds_per_call"] < 1e-3
    # What was measured before counts too, whichever was disturbed.
    for earlier, expected in ((1e-9, 2**23 / 1e-9), (1e9, None)):
        before = {"seconds": {name: [earlier] for name in found["seconds"]}}
        again = ceilings.measure_ceilings(rounds=3, before=before)
        assert {len(seconds) for seconds in again["seconds"].values()} == {4}
        best = expected or 2**23 / min(again["seconds"]["copy"][1:])
        assert again["copy_bytes_per_second"] == pytest.approx(best)


def test_a_rate_is_that_of_the_fastest_way() -> None:
    products = {"float32": 2.0, "float32, default": 3.0, "bfloat16": 9.0, "tf32": 5.0}
    rates = {"product_flops_per_second": products}
    rates |= {"copy_bytes_per_second": 4.0, "read_bytes_per_second": 5.0}
    assert (ceilings.memory_rate(rates), ceilings.product_rate(rates)) == (5.0, 3.0)
    assert [ceilings.product_rate(rates, name) for name in ("tf32", "bf16")] == [5.0, 9.0]


def test_what_is_copied_is_far_beyond_the_largest_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ceilings, "CACHES", tmp_path)
    assert ceilings.beyond_cache() == 2**28
    for index, size in enumerate(("48K", "491520K", "2048K")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n")
    assert ceilings.beyond_cache() == 2 * 480 * 2**20


def test_the_estimators_table_has_bias_error_and_a_mark_where_the_draws_are_too_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "bench.bench_estimators.league",
        lambda: [gaussian_channel(2, 1.0), gaussian_channel(9, 8.0)],
    )
    monkeypatch.setattr(critic, "STEPS", 400)
    monkeypatch.setattr(critic, "INFONCE_STEPS", 20)
    records = measure((256,), repeats=2)
    assert [record["estimator"] for record in records] == 2 * list(ESTIMATORS)
    *_, little, much = table(records).splitlines()
    assert little.startswith("| Gaussian, 2 pairs | 1.00 | 256 |")
    error = np.array(records[0]["nats"]) - 1.0
    assert f"| {error.mean():+.2f} ({np.sqrt((error**2).mean()):.2f}) |" in little
    assert "!" not in little
    records[4]["supported"] = [True, False]
    assert table(records).splitlines()[-1].count("!") == 1 + much.count("!")


def test_instructions_are_counted_by_kind() -> None:
    codes = ["HMMA.16816.F32", "HMMA.1688.F32.TF32", "LDG.E.128.CONSTANT", "LDG.E", "STL", "IADD3"]
    assert resources.mix(codes) == {"HMMA": 2, "LDG.128": 1, "LDG": 1, "STL": 1}
    codes = ["v_mfma_f32_32x32x8f16", "global_load_dwordx4", "global_load_dword", "s_add_u32"]
    assert resources.mix(codes) == {"v_mfma": 1, "global_load_dwordx4": 1, "global_load": 1}


def test_kernels_are_compared_with_the_baseline_of_their_triton(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The compiler's part is played here: two architectures, one of which differs in one figure."""
    kept = resources.Resources(40, 0, 0, 1024, 500, 4)
    more = resources.Resources(48, 0, 0, 1024, 500, 4, {"HMMA": 2})
    asked: list[object] = []
    built = {"a": {"k [one]": kept}, "b": {"k [one]": more}}
    made = SimpleNamespace(
        USUAL=("one",), measure_everywhere=lambda cases: asked.append(cases) or built
    )
    modules = {"resources": resources, "compiler": made}
    monkeypatch.setattr(static, "module_of_tests", modules.__getitem__)
    monkeypatch.setattr(static, "version", lambda name: "3")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "there")
    baseline = {
        "a": {"k [one]": kept, "k [another]": kept},
        "b": {"k [one]": kept, "lost [one]": kept},
    }
    monkeypatch.setattr(resources, "load", lambda: {"3": baseline})
    found = static.measure_resources(quick=False)
    assert asked == [("one",)]
    # What is not built here is no difference, a kernel that went is.
    assert found["differences"] == [
        "b: lost [one]: only in the baseline",
        "b: k [one]: registers 40 -> 48 (+8)",
    ]
    assert (found["binaries"], found["of"]) == (2, 4)
    assert found["kernels"]["b"]["k [one]"]["registers"] == 48
    assert found["kernels"]["b"]["k [one]"]["mix"] == {"HMMA": 2}
    assert "leaves no time" in static.measure_resources(quick=True)["skipped"]["kernels"]
    monkeypatch.setattr(resources, "load", lambda: {"4": {}})
    assert "no baseline for Triton 3, only for 4" in static.missing(quick=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "not installed" in static.missing(quick=False)
