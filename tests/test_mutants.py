"""The mutant suite fits the tree it is to be planted in; `nox -s mutants` plants it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from mutants import KNOWN, MUTANTS, Edit, mutate
from plant import ROOT, judge, planted


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_still_applies(name: str) -> None:
    mutant = MUTANTS[name]
    assert mutant.edits
    for edit in mutant.edits:
        text = (ROOT / edit.file).read_text(encoding="utf-8")
        changed = mutate(text, edit)
        assert changed != text
        ast.parse(changed)


def test_every_mutants_tests_are_there() -> None:
    """By their whole names: pytest runs none of its tests where one is not found."""
    assert all(mutant.tests for mutant in MUTANTS.values())
    tests = sorted({test for mutant in MUTANTS.values() for test in mutant.tests})
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *tests], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_known_defect_is_planted_or_cannot_happen() -> None:
    planted_here = {mutant.known for mutant in MUTANTS.values()} - {0}
    assert set(KNOWN) == set(range(1, 19))
    for number, words in KNOWN.items():
        assert (number in planted_here) != words.endswith("here"), words


def test_an_edit_that_no_longer_fits_says_so() -> None:
    with pytest.raises(ValueError, match="occurs 2 times; allowed: once"):
        mutate("a a", Edit("a.py", "a", "b"))


def test_a_mutant_that_nobody_sees_is_not_called_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the tree is as it was, whatever the verdict."""
    mutant = MUTANTS["collapse-is-ok"]
    file = tmp_path / mutant.edits[0].file
    file.parent.mkdir(parents=True)
    text = (ROOT / mutant.edits[0].file).read_text(encoding="utf-8")
    file.write_text(text, encoding="utf-8")
    for code, verdict in ((0, "SURVIVED"), (1, "killed"), (4, "ERROR 4")):
        monkeypatch.setattr("plant.run_tests", lambda tree, tests, c=code: (c, "no such test"))
        assert judge(tmp_path, mutant).startswith(verdict)
        assert file.read_text(encoding="utf-8") == text
    with planted(tmp_path, mutant):
        assert file.read_text(encoding="utf-8") != text
