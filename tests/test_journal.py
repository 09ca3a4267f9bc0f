"""What an unfinished run says of itself: its plan, who works on it, and what made its parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vaekit import checkpoint, journal, launch, machine
from vaekit.config import SweepConfig
from vaekit.interrupt import Interrupts
from vaekit.journal import DECIDING, PLAN, Journal
from vaekit.launch import Work
from vaekit.progress import Silent
from vaekit.stack import Stack
from vaekit.train import train

STACKS = [Stack((0.0, 3.0), (0, 0), (0.5,)), Stack((0.0, 3.0), (0, 0), (8.0,))]


def config(**changes: object) -> SweepConfig:
    values = {"mu": (0.0, 3.0), "beta": (0.5, 8.0), "steps": 20, "hidden": (4,), "batch": 4}
    values |= {"grid": 2, "tile": 2, "latents": 2, "evaluation_draws": 64, "baseline_seeds": 0}
    return SweepConfig(**{**values, "device": "cpu", "threads": 1, **changes})


def make(out: Path, notes: list[str]) -> Journal:
    made = Journal(out, config(), notes.append, 0.0)
    made.directory.mkdir(parents=True, exist_ok=True)
    return made


def plan(out: Path, threads: int = 1) -> tuple[list[Stack], int, list[str]]:
    """Plan as a run would; return the shards, the threads and what was said."""
    notes: list[str] = []
    return *make(out, notes).plan(lambda: STACKS, threads), notes


def test_a_plan_keeps_shards_and_threads(tmp_path: Path) -> None:
    assert plan(tmp_path, 2) == (STACKS, 2, [])
    assert plan(tmp_path, 2) == (STACKS, 2, [])
    assert plan(tmp_path, 4) == (STACKS, 2, ["threads: 2, as the run began, and not 4"])


def signed(plan: object) -> bytes:
    """Write a plan with the checksum that it would have, where it has one."""
    try:
        sha256 = journal._Plan.model_validate(plan).checksum()
    except ValidationError:
        sha256 = "0" * 64
    return json.dumps({"plan": plan, "sha256": sha256}).encode()


def assert_planned_anew(out: Path, content: bytes) -> None:
    path = out / "progress" / PLAN
    path.write_bytes(content)
    stacks, threads, notes = plan(out, 3)
    assert (stacks, threads) == (STACKS, 3)
    assert len(notes) == 1
    assert str(path) in notes[0] and notes[0].endswith("planned anew")
    assert plan(out, 3) == (STACKS, 3, [])


GOOD: dict[str, Any] = {
    "threads": 1,
    "shards": [{"mu": s.mu, "seeds": s.seeds, "beta": s.beta} for s in STACKS],
}


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": 0},
        {"threads": 2**40},
        {"more": 1},
        {"shards": []},
        {"shards": GOOD["shards"][:1]},
        {"shards": [*GOOD["shards"], GOOD["shards"][0]]},
        {"shards": [GOOD["shards"][0], {"mu": [0, 3], "seeds": [0], "beta": [8.0]}]},
        {"shards": [GOOD["shards"][0], {"mu": [3, 0], "seeds": [0, 1], "beta": [8.0]}]},
    ],
    ids=["no-thread", "threads", "unknown", "none", "missing", "twice", "torn", "others"],
)
def test_a_plan_of_other_models_or_of_another_version_is_made_anew(
    tmp_path: Path, changes: dict
) -> None:
    plan(tmp_path)
    assert_planned_anew(tmp_path, signed({**GOOD, **changes}))


def test_a_plan_from_before_threads_were_kept_is_made_anew(tmp_path: Path) -> None:
    plan(tmp_path)
    assert_planned_anew(tmp_path, json.dumps({"shards": GOOD["shards"]}).encode())


def test_every_digit_of_a_plan_counts(tmp_path: Path) -> None:
    plan(tmp_path)
    path = tmp_path / "progress" / PLAN
    assert json.loads(path.read_bytes()) == json.loads(signed(GOOD))
    content = path.read_bytes()
    assert content.count(b'"threads": 1') == 1
    assert_planned_anew(tmp_path, content.replace(b'"threads": 1', b'"threads": 2'))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
)


@settings(max_examples=150, deadline=None)
@given(
    content=st.binary(max_size=200)
    | st.fixed_dictionaries(
        {
            "threads": JSON,
            "shards": st.lists(
                st.fixed_dictionaries(dict.fromkeys(["mu", "seeds", "beta"], JSON)), max_size=3
            ),
        }
    ).map(signed)
)
def test_no_content_of_a_plan_raises_or_is_believed(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    out = tmp_path_factory.mktemp("plan")
    plan(out)
    assert_planned_anew(out, content)


def elsewhere(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    """Be another machine."""
    there = machine.provenance(machine.resolve_device("cpu")) | changes
    monkeypatch.setattr(journal, "provenance", lambda device: there)


def read(out: Path, name: str) -> list[str]:
    """Read a checkpoint twice; return what is said of it."""
    notes: list[str] = []
    made = make(out, notes)
    for _ in range(2):
        assert made.read(name, STACKS[0]) is not None
    return notes


@pytest.mark.parametrize("name", DECIDING)
def test_a_part_that_was_made_otherwise_is_said_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    elsewhere(monkeypatch, **{name: "before"})
    for part in ("first", "second"):
        make(tmp_path, []).write(part, STACKS[0], 8, {"weights": np.zeros(3)})
    assert read(tmp_path, "first") == []
    elsewhere(monkeypatch, **{name: "now"})
    (said,) = read(tmp_path, "first")
    assert said == (
        f"a part of this run was made with {name} before (here now): its bits may differ from "
        "those of a run that was never stopped"
    )


def test_the_compiler_counts_where_it_makes_the_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "compiler_version", lambda: "g++ 12")
    make(tmp_path, []).write("plain", STACKS[0], 8, {"weights": np.zeros(3)})
    assert "compiler" not in make(tmp_path, []).versions
    monkeypatch.setattr(journal, "engine_name", lambda config, device: "compiled")
    make(tmp_path, []).write("compiled", STACKS[0], 8, {"weights": np.zeros(3)})
    assert make(tmp_path, []).versions["compiler"] == "g++ 12"
    assert read(tmp_path, "compiled") == []
    assert "compiler unknown (here g++ 12)" in read(tmp_path, "plain")[0]
    monkeypatch.setattr(journal, "engine_name", lambda config, device: "torch")
    assert "compiler g++ 12 (here none)" in read(tmp_path, "compiled")[0]


def test_versions_that_decide_no_bits_are_not_spoken_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(monkeypatch, matplotlib="before", python="before")
    make(tmp_path, []).write("part", STACKS[0], 8, {"weights": np.zeros(3)})
    elsewhere(monkeypatch, matplotlib="now", python="now")
    assert read(tmp_path, "part") == []


def work(out: Path) -> Work:
    return Work(config(), out, 1, fail_on_divergence=False, checkpoint_seconds=0.0)


def begin(out: Path) -> None:
    """Leave checkpoints of a shard's training, of which the last one is damaged."""
    made = make(out, [])
    train(
        config(), STACKS[0], machine.resolve_device("cpu"), Silent(), made.keeper(0, Interrupts())
    )
    newest = max(made.directory.glob("training-*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-1])


def test_signed_contents_that_are_not_a_training_are_passed_over(tmp_path: Path) -> None:
    """A tensor is missing, or one too many, or of another form; or the step is beyond the last."""
    cpu, said = machine.resolve_device("cpu"), []
    made = make(tmp_path, said)
    expected = train(config(), STACKS[0], cpu, Silent(), made.keeper(0, Interrupts()))
    name = "training-00000"
    step, whole = made.read(name, STACKS[0])
    assert step == 20
    others: list[tuple[int, dict[str, Any]]] = [
        *((20, {key: value for key, value in whole.items() if key != lost}) for lost in whole),
        *((20, {**whole, key: np.stack([value, value])}) for key, value in whole.items()),
        *((20, {**whole, key: value.astype(np.float16)}) for key, value in whole.items()),
        (20, {**whole, "more": np.zeros(3)}),
        (21, whole),
        (10**11, whole),
    ]
    for step, arrays in others:
        made.write(name, STACKS[0], 16, {"of": np.zeros(1)})
        made.write(name, STACKS[0], step, arrays)
        said.clear()
        found = train(config(), STACKS[0], cpu, Silent(), made.keeper(0, Interrupts()))
        assert len(said) == 2
        assert f"{name}-{step:012d}.json: " in said[0]
        assert f"{name}-000000000016.json: holds no time" in said[1]
        assert all("the one before it is used" in text for text in said)
        assert torch.equal(found.vae.flat, expected.vae.flat)
        np.testing.assert_array_equal(found.curves.loss, expected.curves.loss)


def test_signed_contents_that_are_no_measures_are_passed_over(tmp_path: Path) -> None:
    said: list[str] = []
    made, name = make(tmp_path, said), "shard-00000"
    shapes: dict[str, tuple[int, ...]] = {"status": (2,), "rate": (2,), "kl": (2, 2)}
    whole = {"rate": np.ones(2), "kl": np.ones((2, 2)), "status": np.array([0, 2], np.int8)}
    made.write(name, STACKS[0], 20, whole)
    found = made.finished(0, STACKS[0], shapes)
    assert found is not None
    assert found["status"].tolist() == ["ok", "diverged"]
    assert not said
    for step, arrays in [
        (19, whole),
        (21, whole),
        *((20, {key: value for key, value in whole.items() if key != lost}) for lost in whole),
        (20, {**whole, "more": np.ones(2)}),
        (20, {**whole, "kl": np.ones((2, 3))}),
        (20, {**whole, "rate": np.ones(3)}),
        (20, {**whole, "status": np.array([0, 3], np.int8)}),
        (20, {**whole, "status": np.array([0, -1], np.int8)}),
        (20, {**whole, "status": np.array([0.0, 1.0])}),
    ]:
        checkpoint.remove(made.directory, name)
        made.write(name, STACKS[0], step, arrays)
        said.clear()
        assert made.finished(0, STACKS[0], shapes) is None
        assert [f"{name}-{step:012d}.json: holds" in text for text in said] == [True]


def test_what_a_worker_has_to_say_reaches_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(tmp_path)
    elsewhere(monkeypatch, torch="another")
    measured, said = launch._remote(work(tmp_path), 0, STACKS[0])
    assert len(measured["status"]) == 2
    assert len(said) == 2
    assert "the one before it is used" in said[0]
    assert "(here another): its bits may differ" in said[1]
