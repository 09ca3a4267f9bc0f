"""A section of a study's answer, and how an interval is written in it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vaekit.report.cells import number
from vaekit.study.statistics import Interval

Rows = list[list[str]]


@dataclass(frozen=True)
class Section:
    """Sentences under a heading, and a table below them whose first row is its head."""

    heading: str
    sentences: list[str]
    table: Rows = field(default_factory=list)


def spell(found: Interval, *, scale: float = 1.0, sign: bool = False) -> str:
    """Write a mean with its interval, as far as there is one: 0.5 [0.4 to 0.6].

    Args:
        found: of one quantity.
        scale: a factor, 100 for percent.
        sign: whether a plus is written.
    """

    def one(value: float) -> str:
        text = number(scale * value)
        return f"+{text}" if sign and value > 0 and text != "0" else text

    if not np.isfinite(found.mean):
        return "–"
    text = one(float(found.mean))
    if np.isfinite([found.low, found.high]).all():
        text += f" [{one(float(found.low))} to {one(float(found.high))}]"
    return text
