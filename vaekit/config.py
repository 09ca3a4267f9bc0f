"""The sweep's configuration: every decision that changes a result is a field here."""

from __future__ import annotations

import difflib
import math
import reprlib
import struct
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

MU_LIMIT = 20.0
# What the images and truths of the exhaustive test grid may take in memory, in float32.
TEST_GRID_BYTES = 4 * 1024**3
# Fresh draws that an estimator of information needs for each truth and latent.
DRAWS_PER_COLUMN = 4
# More than any sweep needs to write down.
FILE_BYTES = 2**20
# A message stays one readable line whatever the value is.
_SHORT = reprlib.Repr()
_SHORT.maxtuple = _SHORT.maxlist = 12
_SHORT.maxstring = _SHORT.maxother = 80


class ConfigError(ValueError):
    """A value that is not allowed: says which field, what it got and what is allowed."""

    def __init__(self, field: str, value: object, allowed: str) -> None:
        self.field = field
        self.value = value
        self.allowed = allowed
        name = field if len(field) <= 80 else _SHORT.repr(field)
        super().__init__(f"{name}: got {_SHORT.repr(value)}; allowed: {allowed}")


def _split(value: object) -> object:
    """Read "0, 1, 2" as a list, so that a command line can give one; "" is the empty list.

    A single number is a list of one, and a numpy array is its numbers.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")] if value.strip() else []
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


def _field(doc: str, allowed: str, default: Any = ..., **limits: Any) -> Any:
    return Field(default, description=doc, json_schema_extra={"allowed": allowed}, **limits)


def _float32(value: float) -> float:
    """Round to what the training computes with (the limits below keep it finite there)."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _unsigned_zero(value: float) -> float:
    return value + 0.0


# The limits leave room for float32, in which everything is trained.
Finite = Annotated[float, Field(allow_inf_nan=False), AfterValidator(_unsigned_zero)]
Mu = Annotated[Finite, Field(ge=-MU_LIMIT, le=MU_LIMIT)]
Beta = Annotated[Finite, Field(ge=0, le=1e38)]
Level = Annotated[Finite, Field(ge=-1e6, le=1e6)]
Width = Annotated[int, Field(ge=1, le=65_536)]
Floats = BeforeValidator(_split)
Estimator = Literal["gaussian", "ksg", "mine", "infonce"]
AxisScore = Literal["mig", "sap", "dci", "higgins", "factorvae"]


class SweepConfig(BaseModel):
    """A sweep over mu (the data's bias), beta (the weight of the KL) and seeds.

    Frozen and validated: constructing one from bad values raises `ConfigError`. A TOML file holds
    the same fields at its top level.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    preset: str = _field(
        "Name of the configuration, for the record.",
        "a name of at most 64 letters, digits and any of . _ -, a letter or digit first",
        "custom",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
    )
    mu: Annotated[tuple[Mu, ...], Floats] = _field(
        "Means of the truths before the sigmoid, the data's bias.",
        f"one or more different numbers from {-MU_LIMIT:g} to {MU_LIMIT:g}",
        min_length=1,
    )
    beta: Annotated[tuple[Beta, ...], Floats] = _field(
        "Weights of the KL.", "one or more different numbers from 0 to 1e38", min_length=1
    )
    seeds: int = _field("Number of seeds.", "a whole number from 1 to 10000", 1, ge=1, le=10_000)
    first_seed: int = _field(
        "The first seed; the others follow it.",
        "a whole number from 0 to 2**62",
        0,
        ge=0,
        le=2**62,
    )
    steps: int = _field("Training steps.", "a whole number from 1 to 2**31", 10_000, ge=1, le=2**31)
    batch: int = _field("Images a step.", "a whole number from 1 to 65536", 128, ge=1, le=65_536)
    learning_rate: Finite = _field(
        "Adam's learning rate.", "a number above 0, to 1", 1e-3, gt=0, le=1
    )
    hidden: Annotated[tuple[Width, ...], Floats] = _field(
        "Hidden widths of the encoder; the decoder mirrors them; empty means linear.",
        "whole numbers from 1 to 65536, at most 16 of them",
        (256, 128),
        max_length=16,
    )
    latents: int = _field("Latents.", "a whole number from 1 to 1024", 9, ge=1, le=1024)
    generator: Literal["sigmoid", "linear"] = _field(
        "What turns a truth into a tile's intensity: the sigmoid, or nothing.",
        "sigmoid, linear",
        "sigmoid",
    )
    grid: int = _field("Tiles along a side.", "a whole number from 1 to 16", 3, ge=1, le=16)
    tile: int = _field("Pixels along a tile's side.", "a whole number from 1 to 64", 7, ge=1, le=64)
    noise_variance: Finite = _field(
        "Variance of the pixel noise of training images.",
        "a number from 0 to 1e6",
        0.25,
        ge=0,
        le=1e6,
    )
    test_levels: Annotated[tuple[Level, ...], Floats] = _field(
        "Intensities whose every combination makes the test grid.",
        "two or more different numbers, between 0 and 1 (linear generator: from -1e6 to 1e6)",
        (0.1, 0.5, 0.9),
        min_length=2,
    )
    likelihood: Literal["gaussian", "bernoulli"] = _field(
        "Likelihood of a pixel.", "gaussian, bernoulli", "gaussian"
    )
    decoder_variance: Finite = _field(
        "Variance of the Gaussian likelihood; beta means nothing without it.",
        "a number from 1e-9 to 1e9",
        0.25,
        ge=1e-9,
        le=1e9,
    )
    decoder_output: Literal["sigmoid", "linear"] = _field(
        "What the decoder's last layer passes through.",
        "sigmoid, linear (bernoulli needs sigmoid)",
        "sigmoid",
    )
    kl: Literal["analytic", "sample"] = _field(
        "The KL that is trained on: in closed form, or at the one latent drawn.",
        "analytic, sample",
        "analytic",
    )
    beta_warmup: int = _field(
        "Steps over which beta rises linearly from 0.", "a whole number from 0 to steps", 0, ge=0
    )
    code: Literal["mean", "sample"] = _field(
        "What the probes read: the encoder's mean, or a draw from the posterior.",
        "mean, sample",
        "mean",
    )
    evaluation_draws: int = _field(
        "Fresh noisy images that each model is measured on.",
        "a whole number from 32 to 2**24",
        32_768,
        ge=32,
        le=2**24,
    )
    estimators: Annotated[tuple[Estimator, ...], Floats] = _field(
        "Further estimates of the information in the code; all but gaussian take time.",
        "different ones of gaussian, ksg, mine, infonce",
        (),
    )
    axis_scores: Annotated[tuple[AxisScore, ...], Floats] = _field(
        "Scores that depend on the latents' axes, which are chance where tiles are alike.",
        "different ones of mig, sap, dci, higgins, factorvae",
        (),
    )
    baseline_seeds: int = _field(
        "Untrained networks measured as the baseline.",
        "a whole number from 0 to 10000",
        20,
        ge=0,
        le=10_000,
    )
    curve_points: int = _field(
        "Points of each training curve.", "a whole number from 1 to 100000", 200, ge=1, le=100_000
    )
    device: str = _field(
        "Where to train.",
        "auto, cpu, cuda, cuda:N",
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d{1,3})?)$",
    )
    engine: Literal["auto", "reference", "torch", "compiled", "triton"] = _field(
        "What trains: autograd (the definition), torch operations, the same compiled, or fused "
        "kernels; auto takes the kernels on CUDA, and compiles for a CPU where that is repaid.",
        "auto, reference, torch, compiled, triton",
        "auto",
    )
    precision: Literal["float32", "tf32x3", "tf32", "bf16"] = _field(
        "What matrix products are rounded to; parameters and updates are float32 in any case.",
        "float32, tf32x3, tf32 (both with the triton engine), bf16 (torch and triton engines)",
        "float32",
    )
    threads: int = _field(
        "CPU threads; 0 leaves torch's own choice.",
        "a whole number from 0 to 1024",
        0,
        ge=0,
        le=1024,
    )
    stack: int = _field(
        "Models trained in one pass; 0 chooses from memory and cache.",
        "a whole number from 0 to 2**20",
        0,
        ge=0,
        le=2**20,
    )

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _first_error(type(self), error) from None

    @model_validator(mode="before")
    @classmethod
    def _refuse_booleans(cls, values: Any) -> Any:
        # Python and pydantic take True for 1, and a sweep of True steps is surely a mistake.
        for name in cls.model_fields.keys() & values.keys():
            value = values[name]
            parts = value if isinstance(value, list | tuple) else (value,)
            if any(isinstance(part, bool) for part in parts):
                raise ConfigError(name, value, allowed(name))
        return values

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        for name in ("mu", "beta", "test_levels"):
            values = getattr(self, name)
            # Two values that are one in float32 would name one data stream, or one model, twice.
            if len({_float32(value) for value in values}) < len(values):
                raise ConfigError(name, values, allowed(name))
        for name in ("estimators", "axis_scores"):
            names = getattr(self, name)
            if len(set(names)) < len(names):
                raise ConfigError(name, names, allowed(name))
        if self.generator == "sigmoid" and not all(
            0 < _float32(level) < 1 for level in self.test_levels
        ):
            raise ConfigError("test_levels", self.test_levels, allowed("test_levels"))
        if self.likelihood == "bernoulli" and self.decoder_output != "sigmoid":
            raise ConfigError("decoder_output", self.decoder_output, allowed("decoder_output"))
        least = DRAWS_PER_COLUMN * (self.factors + self.latents)
        if self.estimators and self.evaluation_draws < least:
            raise ConfigError(
                "evaluation_draws",
                self.evaluation_draws,
                f"from {least} with estimators, {DRAWS_PER_COLUMN} for each truth and latent",
            )
        if self.beta_warmup > self.steps:
            raise ConfigError("beta_warmup", self.beta_warmup, f"0 to steps, which is {self.steps}")
        # In logarithms: the count itself may have hundreds of digits.
        images = self.factors * math.log10(len(self.test_levels))
        needed = images + math.log10(4 * (self.pixels + self.factors))
        if needed > math.log10(TEST_GRID_BYTES):
            size = f"{10 ** (needed - 9):.3g} GB" if needed < 18 else f"1e{needed:.0f} bytes"
            raise ConfigError(
                "grid",
                self.grid,
                f"a test grid of at most {TEST_GRID_BYTES / 1e9:.1f} GB; {len(self.test_levels)} "
                f"test_levels on {self.factors} tiles take {size}",
            )
        return self

    @classmethod
    def from_preset(cls, name: str, **overrides: Any) -> Self:
        """Return a preset, with some of its fields replaced.

        Raises:
            ConfigError: there is no such preset, or a value is not allowed.
        """
        if name not in PRESETS:
            raise ConfigError("preset", name, ", ".join(PRESETS))
        return cls(**{"preset": name, **PRESETS[name], **overrides})

    @classmethod
    def from_toml(cls, path: Path | str, **overrides: Any) -> Self:
        """Read a configuration file, with some of its fields replaced.

        Raises:
            ConfigError: the file is not there, is larger than a megabyte, is not TOML, or holds a
                value that is not allowed.
        """
        try:
            text = _read_text(Path(path))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError("config", str(path), f"a readable text file ({error})") from None
        try:
            values = tomllib.loads(text)
        # An integer of thousands of digits is a plain ValueError, and brackets nest too deep.
        except (ValueError, RecursionError) as error:
            raise ConfigError("config", str(path), f"a TOML file ({error})") from None
        return cls(**{**values, **overrides})

    def to_toml(self) -> str:
        """Write every field as TOML; `from_toml` reads back an equal configuration."""
        return tomli_w.dumps(self.model_dump(mode="json"))

    @property
    def image_side(self) -> int:
        """Pixels along an image's side."""
        return self.grid * self.tile

    @property
    def pixels(self) -> int:
        """Pixels of an image, P."""
        return self.image_side**2

    @property
    def factors(self) -> int:
        """Tiles of an image, F."""
        return self.grid**2

    @property
    def test_images(self) -> int:
        """Images of the exhaustive test grid, T."""
        return int(len(self.test_levels) ** self.factors)

    @property
    def seed_values(self) -> tuple[int, ...]:
        """The seeds, in order."""
        return tuple(range(self.first_seed, self.first_seed + self.seeds))


def allowed(field: str) -> str:
    """Say in words which values a field of `SweepConfig` takes."""
    extra = SweepConfig.model_fields[field].json_schema_extra
    return str(extra["allowed"]) if isinstance(extra, dict) else ""


def _read_text(path: Path) -> str:
    """Read a file that is no larger than a configuration can be: others may never end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError("not a regular file")
    with path.open("rb") as file:
        content = file.read(FILE_BYTES + 1)
    if len(content) > FILE_BYTES:
        raise OSError(f"more than {FILE_BYTES:,} bytes")
    return content.decode("utf-8-sig").replace("\r\n", "\n")


def _first_error(cls: type[SweepConfig], error: ValidationError) -> ConfigError:
    """Turn the complaint of pydantic's that helps most into ours."""
    # A misspelt name first: the field it was meant for may also be reported as missing.
    first = min(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
    field = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(field, cls.model_fields, n=1)
        hint = f"did you mean {near[0]}?" if near else ", ".join(cls.model_fields)
        return ConfigError(field, first["input"], f"no such field; {hint}")
    if first["type"] == "missing":
        return ConfigError(field, None, allowed(field))
    if first["type"] == "value_error" and isinstance(first["ctx"]["error"], ConfigError):
        inner = first["ctx"]["error"]
        return ConfigError(inner.field, inner.value, inner.allowed)
    return ConfigError(field, first["input"], allowed(field))


_POST: dict[str, Any] = {
    "mu": tuple(index / 2 for index in range(11)),
    "beta": (0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0),
    "seeds": 3,
    "steps": 10_000,
}
PRESETS: dict[str, dict[str, Any]] = {
    "post": _POST,
    "laptop": {"mu": _POST["mu"], "beta": (0.5, 1.0, 2.0, 4.0, 8.0), "steps": 4_000},
    "warmup": {**_POST, "beta_warmup": 5_000},
    "smoke": {"mu": (0.0, 2.0, 4.0), "beta": (0.5, 2.0, 8.0), "steps": 300},
}
