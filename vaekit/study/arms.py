"""Arms as data: a name, what it is for, and what it changes in the study's base."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vaekit.config import PRESETS, ConfigError, SweepConfig
from vaekit.theory import intensity_variance

# Fits ten minutes on two cores: fewer cells, a smaller network, a larger learning rate.
SIZES: dict[str, dict[str, Any]] = {
    "reduced": {
        "mu": (0.0, 1.0, 2.0, 3.0),
        "beta": (0.5, 1.0, 2.0, 4.0, 8.0, 12.0),
        "seeds": 2,
        "steps": 1_200,
        "hidden": (64,),
        "batch": 64,
        "learning_rate": 2e-3,
        "evaluation_draws": 4_096,
        "baseline_seeds": 3,
        "curve_points": 20,
    },
    "laptop": {**PRESETS["laptop"], "seeds": 3},
    "post": PRESETS["post"],
}
DECODER_VARIANCES = (0.25, 0.5, 1.0)
# The arm whose objective is minimised best: what the controls are compared with.
REFERENCE = "warmup-analytic-0.25"


@dataclass(frozen=True)
class Arm:
    """One sweep of a study: `changes` replace fields of the study's base configuration."""

    name: str
    changes: dict[str, Any] = field(default_factory=dict)


# The post's baseline at the default network, whatever the size of the study's own.
UNTRAINED = Arm(
    "untrained",
    {
        "mu": (0.0,),
        "beta": (1.0,),
        "seeds": 1,
        "steps": 1,
        "hidden": (256, 128),
        "baseline_seeds": 20,
    },
)


@dataclass(frozen=True)
class Study:
    """A name, the size it is run at, the base configuration and the arms."""

    name: str
    preset: str
    base: dict[str, Any]
    arms: tuple[Arm, ...]

    def config(self, arm: Arm) -> SweepConfig:
        """Return the configuration of an arm."""
        name = f"{self.name}-{self.preset}"
        return SweepConfig(**{"preset": name, **self.base, **arm.changes})


def make_study(name: str, preset: str) -> Study:
    """Return a study at one of its sizes.

    Raises:
        ConfigError: there is no such study, or no such size.
    """
    if name not in STUDIES:
        raise ConfigError("study", name, ", ".join(STUDIES))
    if preset not in SIZES:
        raise ConfigError("preset", preset, ", ".join(SIZES))
    return Study(name, preset, SIZES[preset], STUDIES[name](SIZES[preset]))


def post_audit(base: dict[str, Any]) -> tuple[Arm, ...]:
    """Every reading of the post's training, and two controls that part bias from noise."""
    first, *others = DECODER_VARIANCES
    # The controls belong to the first variance: a study that is cut short has them.
    return (
        *readings_at(first, base),
        *matched_arms(base),
        linear_arm(base),
        UNTRAINED,
        *(arm for variance in others for arm in readings_at(variance, base)),
    )


def readings_at(variance: float, base: dict[str, Any]) -> list[Arm]:
    """Fixed beta and warm-up, analytic and one-sample KL, at a decoder variance."""
    return [
        Arm(
            f"{schedule}-{kl}-{variance:g}",
            {"beta_warmup": warmup, "kl": kl, "decoder_variance": variance},
        )
        for schedule, warmup in (("fixed", 0), ("warmup", base["steps"] // 2))
        for kl in ("analytic", "sample")
    ]


def matched_arms(base: dict[str, Any]) -> list[Arm]:
    """One arm for each mu but 0, with the signal-to-noise ratio that mu = 0 has.

        noise_variance(mu) = 0.25 Var[sigmoid(N(mu, 1))] / Var[sigmoid(N(0, 1))]

    The decoder variance follows, which keeps critical_beta at its value at mu = 0 as well.
    """
    arms = []
    for mu in base["mu"]:
        if mu:
            noise = 0.25 * float(intensity_variance(mu) / intensity_variance(0.0))
            changes = {"mu": (mu,), "noise_variance": noise, "decoder_variance": noise}
            arms.append(Arm(f"matched-mu-{mu:g}", _control(base, changes)))
    return arms


def linear_arm(base: dict[str, Any]) -> Arm:
    """The linear grid, in which mu only shifts the images, at the sigmoid's ratio at mu = 0."""
    noise = 0.25 / float(intensity_variance(0.0))
    changes = {"generator": "linear", "decoder_output": "linear"}
    return Arm(
        "linear",
        _control(base, {**changes, "noise_variance": noise, "decoder_variance": noise}),
    )


def _control(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return {"beta_warmup": base["steps"] // 2, **changes}


STUDIES: dict[str, Callable[[dict[str, Any]], tuple[Arm, ...]]] = {"post-audit": post_audit}
