"""Studies: several sweeps that share their noise, and what they say together.

A study's arms have the same seeds, so that with counter-based noise a difference between two arms
is paired: it is taken within each seed and cell. Every arm is a run directory of its own.
"""

from vaekit.study.arms import STUDIES, Arm, Study, make_study
from vaekit.study.page import write_study_report
from vaekit.study.run import run_study

__all__ = ["STUDIES", "Arm", "Study", "make_study", "run_study", "write_study_report"]
