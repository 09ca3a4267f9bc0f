"""The gate: it is quiet when nothing changed, sees 5 %, and takes any commit's sources."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from bench import gate, paired, workers
from bench.errors import BenchError
from bench.paired import (
    AGAIN,
    BASE,
    FEWEST,
    NEW,
    ORDER,
    ROUNDS,
    SETS,
    Times,
    is_close,
    judge,
    measure,
)


def noisy(
    rng: np.random.Generator, slowdown: float, scatter: float = 0.012, apart: float = 0.012
) -> dict[str, Times]:
    """A shared machine: a drift that all meet, scatter, now and then a stall, and an offset of
    every process. What two processes of one tree differ by is 1.2 %, as was measured, and their
    rounds scatter by as much, or by 4 % on a bad day.
    """
    found: dict[str, Times] = {name: [] for name in ORDER}
    while not found[NEW] or not (is_close(found) or len(found[NEW]) == SETS):
        drift = np.exp(np.cumsum(rng.normal(0, 0.02, ROUNDS)))
        for name in ORDER:
            stalls = np.where(rng.random(ROUNDS) < 0.05, 1.5, 1.0)
            offset = rng.lognormal(0, apart / 2**0.5)
            seconds = drift * offset * rng.lognormal(0, scatter, ROUNDS) * stalls
            found[name].append(list(seconds * (1 + slowdown if name == NEW else 1.0)))
    return found


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the program is that workers run."""
    path = tmp_path / "worker.py"
    monkeypatch.setattr(workers, "WORKER", path)
    return path


@pytest.mark.parametrize("scatter", [0.012, 0.04])
def test_alarms_are_few_and_five_percent_is_seen_under_one_model_of_the_noise(
    scatter: float,
) -> None:
    """Either is easy alone."""
    rng = np.random.default_rng(0)
    same = [judge(noisy(rng, 0.0, scatter)).word for _ in range(100)]
    assert same.count("slower") <= 5
    assert same.count("faster") <= 5
    planted = [judge(noisy(rng, 0.05, scatter)).word for _ in range(100)]
    assert planted.count("slower") >= 95


def test_sets_are_added_until_the_interval_is_close() -> None:
    """A noisy machine takes more of them, none takes fewer than there must be."""
    rng = np.random.default_rng(0)
    quiet, loud = (
        [len(noisy(rng, 0.0, scatter, apart)[NEW]) for _ in range(20)]
        for scatter, apart in ((0.001, 0.003), (0.04, 0.012))
    )
    assert min(quiet) == FEWEST
    assert np.mean(loud) > np.mean(quiet) + 3
    assert max(loud) <= SETS


def test_the_interval_holds_the_truth_although_processes_differ() -> None:
    """Of 200 true ratios about 95 % lie in their intervals, however few sets there are."""
    rng = np.random.default_rng(1)
    found = [judge(noisy(rng, 0.05)) for _ in range(200)]
    assert sum(verdict.low <= 1.05 <= verdict.high for verdict in found) >= 182


def test_what_a_round_has_in_common_is_no_part_of_its_ratio() -> None:
    """A machine of two speeds that changes with every round, by more than what is looked for."""
    speed = np.where(np.random.default_rng(0).random(ROUNDS) < 0.5, 1.0, 1.5)
    sets = {name: [list(speed)] * FEWEST for name in (BASE, AGAIN)} | {NEW: [list(1.05 * speed)]}
    found = judge(sets | {NEW: sets[NEW] * FEWEST})
    assert (found.ratio, found.low, found.noise) == pytest.approx((1.05, 1.05, 0.0))


def test_times_that_are_skew_are_no_difference() -> None:
    """The mean of two of them has another median than one."""
    rng = np.random.default_rng(0)
    times = {name: [list(1 + rng.exponential(1.0, 30_000))] for name in ORDER}
    assert abs(paired.of_sets(times[NEW], times[BASE], times[AGAIN])[0]) < 0.01


def test_rounds_of_one_set_do_not_count_as_so_many_processes() -> None:
    """An offset of one set of processes is no slowdown, however steady its rounds are."""
    steady: dict[str, Times] = {name: [[1.0] * ROUNDS for _ in range(8)] for name in ORDER}
    steady[NEW][0] = [1.6] * ROUNDS
    assert judge(steady).ratio == pytest.approx(1.0)
    steady[NEW][1:3] = [[1.6] * ROUNDS] * 2
    assert judge(steady).ratio == pytest.approx(1.6 ** (1 / 4))
    assert judge(steady).low <= 1.0
    assert judge(steady).word == "not known"
    assert not is_close(steady)


def test_noise_raises_the_limit() -> None:
    quiet = {name: [[1.0, 1.0], [1.0, 1.0]] for name in ORDER}
    more = [[1.1, 1.1], [1.1, 1.1]]
    assert judge(quiet).limit == pytest.approx(1 + paired.SMALLEST)
    loud = quiet | {AGAIN: more, NEW: more}
    assert judge(loud).limit == pytest.approx(1 + 2 * np.log(1.1))
    assert judge(loud).word == "no difference"
    assert judge(quiet | {NEW: more}).word == "slower"
    assert judge(quiet | {NEW: [[0.9, 0.9]] * 2}).word == "faster"


def test_what_the_noise_is_not_known_by_does_not_raise_the_limit() -> None:
    """Sets that differ either way by as much are no offset between two runs of one tree."""
    even = {name: [[1.0], [1.0]] for name in ORDER} | {AGAIN: [[1.05], [1 / 1.05]]}
    assert judge(even).noise == pytest.approx(0.0, abs=1e-12)
    assert judge(even).limit == pytest.approx(1 + paired.SMALLEST)


def test_a_difference_that_noise_hides_is_not_said_to_be_none() -> None:
    wide = {BASE: [[1.0]] * 8, AGAIN: [[1.0]] * 8, NEW: [[1.0], [1.1]] * 4}
    assert judge(wide).word == "not known"
    assert judge({**wide, NEW: [[1.3], [1.4]] * 4}).word == "slower"
    assert judge({**wide, NEW: [[1.0]] * 8}).word == "no difference"


def test_a_time_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not a positive number"):
        judge({BASE: [[1.0]], AGAIN: [[1.0]], NEW: [[float("nan")]]})


def test_the_order_turns_and_nothing_is_timed_twice_in_a_row() -> None:
    calls: list[str] = []

    def timer(name: str) -> float:
        calls.append(name)
        return 1.0

    samples = measure({name: lambda name=name: timer(name) for name in ORDER})
    first, second, third = ORDER
    turns = [second, third, first], [third, first, second]
    assert calls[:12] == [*ORDER, *turns[0], *turns[1], *ORDER]
    assert all(a != b for a, b in itertools.pairwise(calls))
    assert {len(seconds) for seconds in samples.values()} == {ROUNDS}
    places = [(name, number % 3) for number, name in enumerate(calls)]
    assert {places.count(place) for place in places} == {ROUNDS // 3}


def test_a_commit_that_there_is_not_is_refused() -> None:
    with (
        pytest.raises(BenchError, match=r"against: got 'no-such-commit'; allowed: a commit"),
        gate.checkout("no-such-commit"),
    ):
        pass


def test_a_slow_tree_is_caught_and_the_samples_are_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    worker: Path,
) -> None:
    """Real processes, whose trees here are a few lines: the new one takes half as long again."""
    worker.write_text(
        "import sys\nsys.path.insert(0, sys.argv[1])\nimport tree\n"
        "print('ready,work', flush=True)\n"
        "for line in sys.stdin: print(tree.SECONDS, flush=True)\n"
    )
    repository, new = tmp_path / "base", tmp_path / "new"
    for place, seconds in ((repository, 1.0), (new, 1.5)):
        place.mkdir()
        (place / "tree.py").write_text(f"SECONDS = {seconds}\n")
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "base"],
    ):
        subprocess.run(["git", *words], cwd=repository, check=True)
    kept: dict[str, object] = {}
    monkeypatch.setattr(gate, "ROOT", repository)
    monkeypatch.setattr(gate, "store", lambda name, content, quick: kept.update(content) or name)
    verdicts = gate.against("HEAD", 2, new)
    assert verdicts["work"].word == "slower"
    times = {
        name: [[seconds] * ROUNDS] * 2 for name, seconds in ((BASE, 1.0), (AGAIN, 1.0), (NEW, 1.5))
    }
    assert kept["seconds"] == {"work": times}
    shown = capsys.readouterr()
    assert "1.500 (1.500 to 1.500)" in shown.out
    assert "set 2 of at most 2" in shown.err
    assert gate.against("HEAD", 2, repository)["work"].word == "no difference"


def test_a_samples_runs_are_as_many_in_every_process(tmp_path: Path, worker: Path) -> None:
    """Later runs find more in cache than the first, so a process with fewer would read slower."""
    worker.write_text(
        "import sys\nprint('ready,work', flush=True)\n"
        "for line in sys.stdin:\n"
        "    repeats = int(line.split()[1])\n"
        "    print(0.004 if repeats == 3 else repeats, flush=True)\n"
    )
    found = gate.take_turns(dict.fromkeys(ORDER, ("tree", tmp_path)), 2)["work"]
    assert found == {name: [[5.0] * ROUNDS] * 2 for name in ORDER}


def test_samples_of_other_rounds_have_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """They cannot be compared: what a run costs depends on how many came before it."""
    digest = gate.worker_digest()
    other = Path(__file__)
    for module, name, value in (
        (paired, "ROUNDS", 2 * paired.ROUNDS),
        (gate, "SECONDS", 2 * gate.SECONDS),
        (workers, "FORK", other),
        (workers, "WORKER", other),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            assert gate.worker_digest() != digest
    assert gate.worker_digest() == digest


def test_the_worker_times_the_trees_own_sources(tmp_path: Path) -> None:
    """Here the tree is this one; in an empty folder what is installed must not stand in for it."""
    with workers.workers({NEW: ("here", gate.ROOT)}) as (ready, benchmarks):
        assert benchmarks == ["training", "generator", "pixel side", "latent side"]
        assert all(0 < ready[NEW].time(name, 1) < 60 for name in benchmarks)
    with (
        pytest.raises(BenchError, match="the process of empty ended"),
        workers.workers({NEW: ("empty", tmp_path)}),
    ):
        pass


# What each tree's copy does instead, by the benchmark that must see it.
LAZY = {
    "training": (
        "vaekit/train.py",
        (
            "def train(config, stack, device, progress):\n"
            "    labels = stack.labels(device)\n"
            "    return Training(StackedVAE.initial(config, labels.seeds), None, None)\n"
        ),
    ),
    "generator": (
        "kernels/vaekit_kernels/__init__.py",
        (
            "def sigmoid_grid(mu, *_, batch, **__):\n"
            "    import torch\n"
            "    return torch.zeros(len(mu), batch, 441), torch.zeros(len(mu), batch, 9)\n"
        ),
    ),
    "pixel side": (
        "kernels/vaekit_kernels/__init__.py",
        (
            "def pixel_nll(output, image, **_):\n"
            "    return reference.pixel_nll(output, image) + 0.001 * output.sum()\n"
        ),
    ),
    "latent side": (
        "kernels/vaekit_kernels/__init__.py",
        (
            "def reparameterise(mean, logvar, noise, **_):\n"
            "    z, kl = reference.reparameterise(mean, logvar, noise)\n"
            "    return z, kl.detach() + 0.0 * kl\n"
        ),
    ),
}


@pytest.mark.parametrize("name", LAZY)
def test_a_tree_that_does_not_do_the_work_is_never_timed(name: str, tmp_path: Path) -> None:
    for folder in ("vaekit", "kernels"):
        shutil.copytree(gate.ROOT / folder, tmp_path / folder)
    file, text = LAZY[name]
    with (tmp_path / file).open("a", encoding="utf-8") as source:
        source.write(f"\n\n{text}")
    with (
        pytest.raises(BenchError, match="the process of lazy ended"),
        workers.workers({NEW: ("lazy", tmp_path)}, (name,)),
    ):
        pass


def test_a_process_that_ends_is_an_error_with_its_name(tmp_path: Path, worker: Path) -> None:
    """Even where another one of the same fork goes on."""
    worker.write_text(
        "import sys\nprint('ready,work', flush=True)\n"
        "for line in sys.stdin if sys.argv[1].endswith('stays') else ():\n"
        "    print(1.0, flush=True)\n"
    )
    trees = {BASE: ("v1", tmp_path), NEW: ("v2", tmp_path / "stays"), AGAIN: ("v3", tmp_path)}
    (tmp_path / "stays").mkdir()
    with workers.workers(trees) as (ready, benchmarks):
        assert benchmarks == ["work"]
        for role, name in ((BASE, "v1"), (AGAIN, "v3")):
            with pytest.raises(BenchError, match=f"the process of {name} ended"):
                ready[role].time("work", 1)
        assert ready[NEW].time("work", 1) == pytest.approx(1.0)


def test_workers_lie_alike_and_end_with_their_context(tmp_path: Path, worker: Path) -> None:
    """On one core, and torch at one address in all of a set, but not of the next one."""
    worker.write_text(
        "import os, sys\ntorch = sys.modules['torch']\n"
        "print('ready', *sys.argv[2:], sep=',', flush=True)\n"
        "assert os.getcwd() == sys.argv[1]\n"
        "for line in sys.stdin:\n"
        "    print(id(torch) if 'address' in line else os.getpid(), flush=True)\n"
    )
    addresses, processes = list[float](), list[psutil.Process]()
    for _ in range(2):
        trees = dict.fromkeys(ORDER, ("here", tmp_path))
        with workers.workers(trees, ("a task", "b")) as (ready, benchmarks):
            assert benchmarks == ["a task", "b"]
            found = {one.time("address", 1) for one in ready.values()}
            processes += [psutil.Process(int(one.time("number", 1))) for one in ready.values()]
            cores = {tuple(os.sched_getaffinity(one.pid)) for one in processes[-len(ORDER) :]}
        assert len(found) == len(cores) == len(cores.pop()) == 1
        addresses += found
    assert addresses[0] != addresses[1]
    assert len(set(processes)) == 2 * len(ORDER)
    assert not psutil.wait_procs(processes, timeout=10)[1]


# A worker that hears nothing, once it has told its number.
DEAF = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", os.getpid(), sep=",", flush=True)
while True:
    pass
"""


def test_a_worker_without_end_ends_with_its_context(tmp_path: Path, worker: Path) -> None:
    worker.write_text(DEAF)
    with workers.workers({NEW: ("here", tmp_path)}) as (_, (number,)):
        found = psutil.Process(int(number))
    assert not psutil.wait_procs([found], timeout=10)[1]


def test_a_worker_without_end_ends_with_a_gate_that_is_killed(tmp_path: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(DEAF)
    gate_of_one = (
        "import sys; from pathlib import Path; from bench import workers\n"
        f"workers.WORKER = Path({str(worker)!r})\n"
        f"with workers.workers({{'new': ('here', Path({str(tmp_path)!r}))}}) as (_, (number,)):\n"
        "    print(number, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", gate_of_one],
        cwd=gate.ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        found = psutil.Process(int(process.stdout.readline()))
        process.kill()
    assert not psutil.wait_procs([found], timeout=10)[1]


def test_what_a_tree_prints_is_no_time_of_it(tmp_path: Path, worker: Path) -> None:
    trees = {NEW: ("v1", tmp_path)}
    worker.write_text("print('hello')\nprint('ready,work', flush=True)\n")
    with pytest.raises(BenchError, match="of v1 printed 'hello'"), workers.workers(trees):
        pass
    worker.write_text("print('ready,work')\nprint('hello', flush=True)\n")
    with workers.workers(trees) as (ready, _), pytest.raises(BenchError, match="printed 'hello'"):
        ready[NEW].time("work", 1)


def test_a_system_without_fork_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    with pytest.raises(BenchError, match="compared in forked processes"), workers.workers({}):
        pass
