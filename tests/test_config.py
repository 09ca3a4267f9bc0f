"""Every value that a configuration refuses, with its message, and that what it keeps is exact."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaekit.config import MU_LIMIT, PRESETS, ConfigError, SweepConfig, allowed

GOOD: dict[str, Any] = {"mu": (0.0, 1.0), "beta": (0.5, 2.0), "steps": 100}
NAN, INF = math.nan, math.inf


def config(**changes: Any) -> SweepConfig:
    return SweepConfig(**{**GOOD, **changes})


# field, value, and what the message must say is allowed
BAD: list[tuple[str, Any, str]] = [
    ("preset", "", "a name"),
    ("preset", "../elsewhere", "a name"),
    ("preset", "a b", "a name"),
    ("preset", "a\n", "a name"),
    ("preset", 3, "a name"),
    ("mu", (), "one or more"),
    ("mu", "", "one or more"),
    ("mu", (0.0, 0.0), "different"),
    ("mu", (0.0, -0.0), "different"),
    ("mu", (0.1, 0.1 + 1e-12), "different"),
    ("mu", (NAN,), "from -20 to 20"),
    ("mu", (INF,), "from -20 to 20"),
    ("mu", (20.5,), "from -20 to 20"),
    ("mu", "0,-21", "from -20 to 20"),
    ("mu", "0,x", "numbers"),
    ("mu", (True,), "numbers"),
    ("mu", None, "one or more"),
    ("beta", (), "one or more"),
    ("beta", (1.0, 2.0, 1.0), "different"),
    ("beta", (0.0, 1e-60), "different"),
    ("beta", (-0.5,), "from 0 to 1e38"),
    ("beta", (NAN,), "from 0 to 1e38"),
    ("beta", (INF,), "from 0 to 1e38"),
    ("beta", (1e39,), "from 0 to 1e38"),
    ("beta", {"from": 0}, "one or more"),
    ("seeds", 0, "from 1 to 10000"),
    ("seeds", 1.5, "whole number"),
    ("first_seed", -1, "from 0"),
    ("first_seed", 2**63, "from 0"),
    ("steps", 0, "from 1"),
    ("steps", -10, "from 1"),
    ("steps", True, "whole number"),
    ("steps", "many", "whole number"),
    ("steps", NAN, "whole number"),
    ("batch", 0, "from 1 to 65536"),
    ("learning_rate", 0.0, "above 0"),
    ("learning_rate", -1e-3, "above 0"),
    ("learning_rate", NAN, "above 0"),
    ("learning_rate", 2.0, "to 1"),
    ("hidden", (0,), "from 1 to 65536"),
    ("hidden", (256, -1), "from 1 to 65536"),
    ("hidden", "256,1.5", "whole numbers"),
    ("hidden", (8,) * 17, "at most 16"),
    ("latents", 0, "from 1 to 1024"),
    ("generator", "tanh", "sigmoid, linear"),
    ("grid", 0, "from 1 to 16"),
    ("tile", 0, "from 1 to 64"),
    ("noise_variance", -0.1, "from 0 to 1e6"),
    ("noise_variance", NAN, "from 0 to 1e6"),
    ("noise_variance", INF, "from 0 to 1e6"),
    ("test_levels", (0.5,), "two or more"),
    ("test_levels", (0.5, 0.5), "different"),
    ("test_levels", (0.0, 0.5), "between 0 and 1"),
    ("test_levels", (0.5, 1.0), "between 0 and 1"),
    ("test_levels", (0.5, 1 - 1e-12), "between 0 and 1"),
    ("test_levels", (0.5, NAN), "between 0 and 1"),
    ("likelihood", "laplace", "gaussian, bernoulli"),
    ("decoder_variance", 0.0, "1e-9 to 1e9"),
    ("decoder_variance", -0.25, "1e-9 to 1e9"),
    ("decoder_variance", 1e-60, "1e-9 to 1e9"),
    ("decoder_variance", INF, "1e-9 to 1e9"),
    ("decoder_output", "tanh", "sigmoid, linear"),
    ("kl", "none", "analytic, sample"),
    ("beta_warmup", -1, "from 0 to steps"),
    ("beta_warmup", 101, "0 to steps, which is 100"),
    ("code", "mode", "mean, sample"),
    ("evaluation_draws", 1, "from 32"),
    ("baseline_seeds", -1, "from 0"),
    ("curve_points", 0, "from 1"),
    ("device", "gpu", "auto, cpu, cuda, cuda:N"),
    ("device", "cuda:", "auto, cpu, cuda, cuda:N"),
    ("threads", -1, "from 0"),
    ("stack", -1, "from 0"),
]


@pytest.mark.parametrize(("field", "value", "allows"), BAD, ids=lambda part: repr(part)[:40])
def test_a_bad_value_is_refused_with_field_value_and_what_is_allowed(
    field: str, value: Any, allows: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**{field: value})
    message = str(caught.value)
    assert caught.value.field == field
    assert message.startswith(f"{field}: got ")
    assert allows in message.partition("; allowed: ")[2]
    assert "\n" not in message and len(message) < 400


def test_an_estimator_gets_the_draws_that_it_needs() -> None:
    """Nine truths and nine latents: 72 draws, which training would otherwise be done without."""
    assert config(evaluation_draws=72, estimators=("ksg",)).evaluation_draws == 72
    assert config(evaluation_draws=71).evaluation_draws == 71
    with pytest.raises(ConfigError, match="evaluation_draws: got 71; allowed: from 72 with est"):
        config(evaluation_draws=71, estimators=("ksg",))


def test_the_message_shows_the_value_itself() -> None:
    with pytest.raises(ConfigError) as caught:
        config(beta=(1.0, -0.5))
    assert caught.value.value == -0.5
    assert (
        str(caught.value) == "beta: got -0.5; allowed: one or more different numbers from 0 to 1e38"
    )


def test_a_long_value_is_cut_short() -> None:
    with pytest.raises(ConfigError) as caught:
        config(mu=tuple([1.0] * 10_000))
    assert len(str(caught.value)) < 200
    assert len(caught.value.value) == 10_000


@pytest.mark.parametrize("field", ["mu", "beta", "test_levels", "hidden"])
def test_every_element_of_a_list_is_checked(field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: got 'x'"):
        config(**{field: (0.5, 0.25, "x") if field != "hidden" else (4, "x")})


@pytest.mark.parametrize("field", ["mu", "beta"])
def test_a_required_field_is_named_when_missing(field: str) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: got None; allowed: one or more"):
        SweepConfig(**{name: value for name, value in GOOD.items() if name != field})


@pytest.mark.parametrize(
    ("key", "hint"),
    [("betas", "did you mean beta?"), ("learning-rate", "did you mean learning_rate?")],
)
def test_an_unknown_field_suggests_the_closest(key: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="no such field") as caught:
        config(**{key: 1})
    assert caught.value.field == key
    assert hint in str(caught.value)


def test_a_misspelt_field_is_named_before_the_missing_one() -> None:
    with pytest.raises(ConfigError, match="^Beta: got .*did you mean beta"):
        SweepConfig(mu=(0.0,), Beta=(1.0,))


def test_an_unknown_field_with_nothing_close_lists_them_all() -> None:
    with pytest.raises(ConfigError) as caught:
        config(zzz=1)
    assert all(name in str(caught.value) for name in SweepConfig.model_fields)


def test_bernoulli_needs_an_output_in_the_unit_interval() -> None:
    with pytest.raises(ConfigError, match="^decoder_output: got 'linear'.*bernoulli needs sigmoid"):
        config(likelihood="bernoulli", decoder_output="linear")
    assert config(likelihood="bernoulli").decoder_output == "sigmoid"


def test_a_test_grid_that_is_too_large_says_how_large() -> None:
    with pytest.raises(ConfigError) as caught:
        config(grid=4)
    # 3**16 images of 28 * 28 pixels and 16 truths, 4 bytes each
    assert caught.value.field == "grid"
    assert "at most 4.3 GB; 3 test_levels on 16 tiles take 138 GB" in str(caught.value)
    assert round(3**16 * (28 * 28 + 16) * 4 / 1e9) == 138
    assert config(grid=4, test_levels=(0.2, 0.8)).test_images == 2**16


def test_a_test_grid_beyond_all_floats_still_has_a_message() -> None:
    with pytest.raises(ConfigError, match="on 256 tiles take 1e[0-9]+ bytes"):
        config(grid=16, test_levels=tuple(index / 100 for index in range(1, 100)))


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        config().steps = 5  # type: ignore[misc]


def test_lists_are_read_from_text_numbers_and_arrays() -> None:
    assert config(mu="0, 1.5,-2").mu == (0.0, 1.5, -2.0)
    assert config(mu=3).mu == (3.0,)
    assert config(mu=np.linspace(0, 1, 3)).mu == (0.0, 0.5, 1.0)
    assert config(beta=np.float64(0.5)).beta == (0.5,)
    assert config(hidden="").hidden == config(hidden=()).hidden == ()
    assert config(hidden="64").hidden == config(hidden=64).hidden == (64,)


def test_a_negative_zero_is_a_zero() -> None:
    read = config(mu=(-0.0,), beta=(-0.0,))
    assert math.copysign(1.0, read.mu[0]) == 1.0
    assert math.copysign(1.0, read.beta[0]) == 1.0


def test_derived_sizes() -> None:
    read = config(seeds=3, first_seed=5)
    assert (read.image_side, read.pixels, read.factors, read.test_images) == (21, 441, 9, 19_683)
    assert read.seed_values == (5, 6, 7)


def test_edges_are_allowed() -> None:
    config(mu=(-MU_LIMIT, MU_LIMIT), beta=(0.0, 1e38), beta_warmup=100, device="cuda:7")
    config(generator="linear", test_levels=(-1e6, 0.0, 1e6), grid=1, tile=1, latents=1)


def test_every_field_says_in_words_what_it_takes() -> None:
    for name, field in SweepConfig.model_fields.items():
        assert allowed(name), name
        assert field.description, name
        for choice in get_args(field.annotation) if isinstance(field.default, str) else ():
            assert choice in allowed(name)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_named(name: str) -> None:
    assert SweepConfig.from_preset(name).preset == name


def test_presets_are_the_experiments_table() -> None:
    post, laptop, warmup, smoke = (
        SweepConfig.from_preset(name) for name in ("post", "laptop", "warmup", "smoke")
    )
    assert post.mu == laptop.mu == tuple(index / 2 for index in range(11))
    assert post.beta == (0.25, 0.5, 1, 2, 3, 4, 5, 6, 7, 8, 10)
    assert (post.seeds, post.steps, post.beta_warmup) == (3, 10_000, 0)
    assert (laptop.beta, laptop.seeds, laptop.steps) == ((0.5, 1, 2, 4, 8), 1, 4_000)
    assert warmup == post.from_preset("post", preset="warmup", beta_warmup=5_000)
    assert (smoke.mu, smoke.beta, smoke.steps) == ((0, 2, 4), (0.5, 2, 8), 300)


def test_a_preset_takes_overrides_and_checks_them() -> None:
    assert SweepConfig.from_preset("smoke", steps=7).steps == 7
    with pytest.raises(ConfigError, match="^steps: got 0"):
        SweepConfig.from_preset("smoke", steps=0)
    with pytest.raises(ConfigError, match="^preset: got 'huge'; allowed: post, laptop"):
        SweepConfig.from_preset("huge")


@given(
    mu=st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=6, unique=True),
    beta=st.lists(st.floats(0, 2.0**126, width=32), min_size=1, max_size=6, unique=True),
    learning_rate=st.floats(1e-12, 1.0),
    decoder_variance=st.floats(1e-9, 1e9),
    first_seed=st.integers(0, 2**62),
    hidden=st.lists(st.integers(1, 65_536), max_size=4),
)
@settings(deadline=None)  # each example writes a file, and a disk may take its time
def test_toml_keeps_every_bit(tmp_path_factory: pytest.TempPathFactory, **values: Any) -> None:
    file = tmp_path_factory.mktemp("toml") / "config.toml"
    before = SweepConfig(**values)
    file.write_text(before.to_toml(), encoding="utf-8")
    after = SweepConfig.from_toml(file)
    assert after == before
    assert after.to_toml() == before.to_toml()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_go_through_toml(name: str, tmp_path: Path) -> None:
    before = SweepConfig.from_preset(name)
    (tmp_path / "config.toml").write_text(before.to_toml(), encoding="utf-8")
    assert SweepConfig.from_toml(tmp_path / "config.toml") == before


def test_a_file_takes_overrides(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text("mu = [0.0]\nbeta = [1.0]\nsteps = 5\n", encoding="utf-8")
    assert SweepConfig.from_toml(file, steps=6).steps == 6
    assert SweepConfig.from_toml(str(file)).steps == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "config: got .*absent.toml.*; allowed: a readable text file"),
        (b"mu = [0", "config: got .*; allowed: a TOML file"),
        (b"\xff\xfe\x00", "config: got .*; allowed: a readable text file"),
        (b"mu = [0]\nbeta = [1]\nbetas = [2]\n", "betas: got .*did you mean beta"),
        (b"mu = [0]\nbeta = [1]\nsteps = true\n", "steps: got True"),
        (b"[sweep]\nmu = [0]\n", "sweep: got .*no such field"),
        (b"mu = " + b"[" * 100_000 + b"]" * 100_000, "config: got .*; allowed: a TOML file"),
        (b"steps = " + b"9" * 10_000, "config: got .*; allowed: a TOML file"),
        (b"k" * 1_000 + b" = 1", r"^'k{37}\.\.\.k{38}': got 1; allowed: no such field"),
        (b"# " + b"x" * 2**20, "config: got .*more than 1,048,576 bytes"),
    ],
    ids=[
        "absent",
        "not-toml",
        "not-text",
        "unknown-key",
        "boolean",
        "table",
        "deep",
        "digits",
        "long-key",
        "huge",
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "absent.toml"
    if content is not None:
        file = tmp_path / "bad.toml"
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        SweepConfig.from_toml(file)


@pytest.mark.skipif(os.name == "nt", reason="Windows has neither of these files")
def test_a_file_that_never_ends_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for file in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ConfigError, match="^config: got .*not a regular file"):
            SweepConfig.from_toml(file)


def test_a_file_saved_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(b"\xef\xbb\xbfmu = [0]\nbeta = [1]\n")
    assert SweepConfig.from_toml(file).mu == (0.0,)
