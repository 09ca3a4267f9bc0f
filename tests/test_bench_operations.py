"""The rows of single operations: each beside its roof, none lost, none too good to be true."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from bench import operations
from bench.errors import BenchError
from bench.operations import measure_operations, time_operations
from bench.test_operations import rows
from bench_samples import CEILINGS

Records = list[dict[str, Any]]


def record(name: str, direction: str, implementation: str) -> dict[str, Any]:
    """What pytest-benchmark stores of 100 bytes and 100 operations that took two seconds."""
    info = {"operation": name, "direction": direction, "implementation": implementation}
    return {"extra_info": info | {"bytes": 100, "work": 100}, "stats": {"data": [2.0, 2.0, 9.0]}}


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Callable[[Records, str], dict[str, Any]]:
    def measured(records: Records, missing: str = "") -> dict[str, Any]:
        monkeypatch.setattr(operations, "measure_ceilings", lambda before: CEILINGS)
        monkeypatch.setattr(operations, "compiler_missing", lambda: missing)
        monkeypatch.setattr(operations, "time_operations", lambda wanted, calls: records)
        return measure_operations(quick=False)

    return measured


def test_the_roof_is_the_slower_of_bytes_and_arithmetic(found: Callable[..., Any]) -> None:
    records = [record(*row) for row in rows()]
    records[1]["extra_info"]["work"] = 1500
    shares = [row["share_of_roof"] for row in found(records)["rows"]]
    assert shares[:3] == pytest.approx([0.5, 0.75, 0.5])


def test_a_row_above_its_roof_stops_the_benchmark(found: Callable[..., Any]) -> None:
    records = [record(*row) for row in rows()]
    records[-1]["stats"]["data"] = [0.9, 0.9, 9.0]
    with pytest.raises(BenchError, match="cannot be right"):
        found(records)


def test_a_row_that_was_not_timed_is_missed(found: Callable[..., Any]) -> None:
    records = [record(*row) for row in rows()]
    with pytest.raises(BenchError, match="1 of 24 operations were not timed"):
        found(records[1:])
    with pytest.raises(BenchError, match="under pytest-xdist"):
        found([])


def test_under_xdist_every_row_is_run_and_that_none_was_timed_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Real processes: pytest-benchmark switches itself off there, and says nothing with -q."""
    some = [row for row in rows() if row[0] == "reparameterise" and row[2] == "torch"]
    monkeypatch.setenv("PYTEST_ADDOPTS", "-n 2")
    monkeypatch.setattr(operations, "rows", lambda: some)
    monkeypatch.setattr(operations, "measure_ceilings", lambda before: CEILINGS)
    with pytest.raises(BenchError, match="2 of 2 operations were not timed.*under pytest-xdist"):
        measure_operations(quick=True)
    said = capfd.readouterr().out
    assert "2 passed" in said
    assert "skipped" not in said


def test_without_a_compiler_its_rows_alone_may_be_missing(found: Callable[..., Any]) -> None:
    records = [record(*row) for row in rows() if row[2] != "compile"]
    assert found(records, "no compiler")["skipped"] == {"operations, compile": "no compiler"}
    with pytest.raises(BenchError, match="1 of 16"):
        found(records[1:], "no compiler")
    with pytest.raises(BenchError, match="8 of 24"):
        found(records)


def test_a_quick_run_asks_for_the_projects_own_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str]] = []
    monkeypatch.setattr(operations, "measure_ceilings", lambda before: CEILINGS)

    def timed(wanted: list[tuple[str, str, str]], calls: int) -> Records:
        asked.extend(wanted)
        return [record(*row) for row in wanted]

    monkeypatch.setattr(operations, "time_operations", timed)
    skipped = measure_operations(quick=True)["skipped"]
    assert asked == [row for row in rows() if row[2] == "torch"]
    assert set(skipped) == {"operations, reference", "operations, compile"}


def test_a_benchmark_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: broken)
    with pytest.raises(BenchError, match="benchmark failed"):
        time_operations(rows(), 3)
