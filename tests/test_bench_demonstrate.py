"""The trial of the gate: the planted work is real, and the counts are those of the gate."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import demonstrate, gate, provenance, storage
from bench.demonstrate import (
    IDLE,
    PLACE,
    PLANT,
    PLANTED,
    SAME,
    WAIT,
    count,
    kept_its_word,
    plant,
)
from bench.paired import AGAIN, BASE, NEW, ROUNDS
from bench.report import write_report
from bench_samples import samples


def test_the_copy_waits_for_a_part_of_its_work_and_for_no_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on by what is done, and by 0.2 us whenever it is asked."""
    tree, copy = tmp_path / "tree", tmp_path / "copy"
    (tree / PLACE).parent.mkdir(parents=True)
    (tree / PLACE).write_text("def reparameterise(*given): return CALLED(*given)\n")
    plant(tree, copy, PLANT)
    assert PLANT not in (tree / PLACE).read_text()
    now = 100.0

    def pass_by(seconds: float) -> float:
        nonlocal now
        now += seconds
        return now

    def called(*given: object) -> tuple[object, ...]:
        pass_by(1e-3)
        return given

    space: dict[str, Any] = {"CALLED": called}
    exec((copy / PLACE).read_text(), space)
    with monkeypatch.context() as patch:
        patch.setattr("time.perf_counter", lambda: pass_by(2e-7))
        for pause in (2e-3, 0.2):
            space["reparameterise"](1, 2, 3)
            begun = now
            for _ in range(100):
                pass_by(pause)
                assert space["reparameterise"](1, 2, 3) == (1, 2, 3)
            worked = 100 * (1e-3 + (pause if pause < 0.01 else 0.0))
            waited = now - begun - 100 * (1e-3 + pause)
            assert waited == pytest.approx(WAIT * worked, rel=0.1)


def test_what_is_not_called_is_as_much_and_changes_nothing() -> None:
    called, left_alone = (
        ast.parse(f"def reparameterise(): return 1\n{lines}") for lines in (PLANT, IDLE)
    )
    assert len([*ast.walk(called)]) == len([*ast.walk(left_alone)])
    space: dict[str, Any] = {}
    exec(compile(left_alone, "a copy", "exec"), space)
    assert space["reparameterise"]() == 1
    assert space["reparameterise"] is space["_plain"]


def test_the_gate_keeps_its_word_with_few_alarms_and_most_slowdowns_seen() -> None:
    def words(same: int, planted: int) -> dict[str, dict[str, int]]:
        def row(kind: str, slower: bool) -> dict[str, Any]:
            new = 1.5 if slower else 0.5
            return {"kind": kind, "seconds": {BASE: [[1.0]], AGAIN: [[1.0]], NEW: [[new]]}}

        rows = [row(SAME, k < same) for k in range(100)]
        return count(rows + [row(PLANTED, k < planted) for k in range(20)])

    assert words(5, 19)[SAME] == {
        "slower": 5,
        "no difference": 0,
        "faster": 95,
        "not known": 0,
    }
    assert kept_its_word(words(5, 19))
    assert not kept_its_word(words(6, 19))
    assert not kept_its_word(words(5, 18))


@pytest.fixture
def acted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], list[str]]:
    """Play the processes: which trees were compared is told, and the copy is so much slower."""

    @contextmanager
    def checkout(ref: str) -> Iterator[Path]:
        (tmp_path / "tree" / PLACE).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / PLACE).touch()
        yield tmp_path / "tree"

    def start(slowdown: float) -> list[str]:
        rng = np.random.default_rng(0)
        compared: list[str] = []

        def take_turns(trees: dict[str, Any], sets: int, wanted: tuple[str, ...]) -> dict[str, Any]:
            compared.append(trees[NEW][0])
            assert trees[BASE] == trees[AGAIN]
            assert trees[BASE][1] == tmp_path / "tree"
            lines = (trees[NEW][1] / PLACE).read_text()
            slow = {NEW: slowdown if "def reparameterise" in lines else 1.0}
            return {
                wanted[0]: {
                    role: (slow.get(role, 1.0) * rng.lognormal(0, 0.002, (sets, 3))).tolist()
                    for role in trees
                }
            }

        monkeypatch.setattr(gate, "take_turns", take_turns)
        return compared

    monkeypatch.setattr(gate, "checkout", checkout)
    monkeypatch.setattr(storage, "REPORTS", tmp_path)
    monkeypatch.setattr(storage, "machine_slug", lambda: "here")
    return start


@pytest.mark.parametrize("slowdown", [1.0, 1.05])
def test_every_comparison_is_kept_and_counted(
    slowdown: float,
    acted: Callable[[float], list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demonstrate, "TRIALS", 2)
    compared = acted(slowdown)
    assert demonstrate.demonstrate(2, sets=6) is (slowdown > 1.0)
    assert compared == 2 * [*["the same copy of HEAD"] * 5, "the slower copy of HEAD"]
    folder = tmp_path / "here"
    assert [path.name for path in folder.iterdir()] == ["demonstration.json"]
    content = json.loads((folder / "demonstration.json").read_text())
    kept = content["comparisons"]
    assert [row["kind"] for row in kept] == 2 * [*[SAME] * 5, PLANTED]
    assert {len(sets) for row in kept for sets in row["seconds"].values()} == {6}
    assert content["planted_size"] == pytest.approx(slowdown - 1, abs=0.002)
    said = f"{content['planted_size']:.1%}"
    assert f"what was planted measures {said}" in capsys.readouterr().out
    (folder / "training.json").write_text(json.dumps(samples()))
    write_report(folder)
    summary = (folder / "summary.md").read_text(encoding="utf-8")
    assert f"| {SAME} | 10 | 0 | 10 | 0 |" in summary
    seen = 2 if slowdown > 1.0 else 0
    assert f"| {PLANTED} | 2 | {seen} | {2 - seen} | 0 |" in summary
    assert "of a commit with a copy that has an uncalled function more and" in summary
    assert f"is {said} slower, as measured" in summary
    assert f"The gate itself takes {ROUNDS} rounds by now" in summary


def test_one_that_was_stopped_is_continued_on_its_own_commit(
    acted: Callable[[float], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = acted(1.05)
    whole, keeping = gate.take_turns, list[int]()

    def stopped(*given: Any) -> Any:
        keeping.append(1)
        if len(keeping) == 5:
            raise KeyboardInterrupt
        return whole(*given)

    made, now = provenance.provenance, {"commit": "1a2b3c4-dirty"}
    monkeypatch.setattr(demonstrate, "provenance", lambda command: made(command) | now)
    monkeypatch.setattr(gate, "take_turns", stopped)
    with pytest.raises(KeyboardInterrupt):
        demonstrate.demonstrate(1, sets=3)
    monkeypatch.setattr(gate, "take_turns", whole)
    part = tmp_path / "here" / "quick" / "demonstration-unfinished.json"
    assert len(json.loads(part.read_text())["comparisons"]) == 4
    now["commit"] = "5d6e7f8"
    demonstrate.demonstrate(1, sets=3)
    same = ["the same copy of HEAD"]
    assert compared[:4] == 4 * same
    assert compared[4:] == ["the same copy of 1a2b3c4", "the slower copy of 1a2b3c4"]
    assert not part.exists()
    # Fewer trials than the committed ones never take their place.
    assert not (tmp_path / "here" / "demonstration.json").exists()
    kept = part.with_name("demonstration.json").read_text()
    assert json.loads(kept)["provenance"]["commit"] == "1a2b3c4-dirty"
    # What was timed by something else is no part of it.
    part.write_text(kept)
    monkeypatch.setattr(gate, "worker_digest", lambda: "another")
    demonstrate.demonstrate(1, sets=3)
    assert compared[6:] == [*5 * same, "the slower copy of HEAD"]


def test_one_of_other_versions_or_of_another_machine_is_begun_anew(tmp_path: Path) -> None:
    asked = {"benchmark": "b", "sets": 8, "worker": "w", "plant": "p", "idle": "i"}
    asked |= {"provenance": {"commit": "a", "machine": "m", "versions": {"torch": "3"}}}
    path = tmp_path / "part.json"
    assert demonstrate.unfinished(path, asked) == {}
    path.write_text(json.dumps(asked | {"comparisons": [1]}))
    for versions, machine, found in (
        ({"torch": "3"}, "m", [1]),
        ({"torch": "3", "what is new": "1"}, "m", [1]),
        ({"torch": "4"}, "m", None),
        ({"torch": "3"}, "another", None),
    ):
        made = {"commit": "b", "machine": machine, "versions": versions}
        assert (
            demonstrate.unfinished(path, asked | {"provenance": made}).get("comparisons") == found
        )
