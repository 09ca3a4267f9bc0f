"""A stored run of the benchmark, of figures that one can check in one's head."""

from __future__ import annotations

from typing import Any

from bench.timing import ratio

# Of a machine that moves 100 bytes and multiplies 1,000 times a second.
CEILINGS = {
    "copy_bytes_per_second": 100.0,
    "read_bytes_per_second": 40.0,
    "product_flops_per_second": {"float32": 1000.0, "float32, default": 400.0},
}


def samples(ours: float = 1.0) -> dict[str, Any]:
    """A stored run of one nearest peer twice as slow as 1, in which the engine takes `ours`."""
    seconds = {
        "vaekit": [ours] * 4,
        "stacked autograd": [2.0] * 4,
        "one after another": [3.0] * 4,
        "vaekit again (A/A)": [ours] * 4,
    }
    rows = {
        name: {
            "ms_per_model_step": 1e3 * times[0] / 20,
            "ratio": ratio(times, seconds["vaekit"]),
            "loss_error": 1e-7,
        }
        for name, times in seconds.items()
    }
    twice = {"vaekit": [0.9, 1.0, 1.1], "vaekit again (A/A)": [0.9, 1.1, 1.1]}
    scaling, batch, width = (
        {
            name: {"ms_per_model_step": cost, "floor_ms": 30.0, "seconds": twice}
            for name, cost in zip(names, (70.0, 50.0, 60.0), strict=True)
        }
        for names in (("1", "11", "121"), ("32", "128", "512"), ("64, 32", "256, 128", "512, 256"))
    )
    beside = twice | {"one after another": [1.8, 3.0, 3.3], "floor": [0.5] * 3}
    for models, row in scaling.items():
        row["seconds"] = {name: [int(models) * t for t in times] for name, times in beside.items()}
    taken = {str(models): {"peak": 10**8 + 9 * models, "planned": 8 * models} for models in (1, 3)}
    return {
        "provenance": {
            "command": "nox -s bench",
            "commit": "abc",
            "date": "2026-01-01",
            "machine": "A <machine>",
            "versions": {"torch": "2"},
            "platform": "Linux",
        },
        "ceilings": {
            "copy_bytes_per_second": 1.5e10,
            "read_bytes_per_second": 1.2e10,
            "product_flops_per_second": {"float32": 4e9, "float32, default": 2e9},
            "seconds_per_call": 1e-6,
        },
        "peers": {
            "models": 10,
            "steps": 2,
            "problem": {
                "pixels": 441,
                "hidden": [256, 128],
                "latents": 9,
                "batch": 128,
                "precision": "float32",
            },
            "skipped": {"JAX vmap + scan": "jax is not installed"},
            "rows": rows,
            "seconds": seconds,
        },
        "full_float32": {"skipped": {"full stacks": "they are timed on a card"}},
        "full_tf32": {},
        "whole": {},
        "sweeps": {},
        "scaling": {"curve": scaling},
        "batch": {"curve": batch},
        "width": {"curve": width},
        "memory": {"curve": taken},
        "parts": {
            "models": 10,
            "seconds": {"products": [0.03, 0.02, 0.04], "Adam": [0.01, 0.01, 0.02]},
            "unwatched_seconds": [0.03, 0.035, 0.05],
        },
    }


def card_samples() -> dict[str, Any]:
    """What a run on a card has besides: full stacks at 2 and 1 µs, whole trainings and sweeps."""
    peers = samples()["peers"]
    seconds = {name: [1e-3 * t for t in times] for name, times in peers["seconds"].items()}
    rows = {
        name: row | {"ms_per_model_step": row["ms_per_model_step"] * 4e-5}
        for name, row in peers["rows"].items()
    }
    rounded = {"vaekit, bf16": rows["vaekit"] | {"ms_per_model_step": 1e-3}}
    full = peers | {"rows": rows, "seconds": seconds}
    half = full | {
        "problem": full["problem"] | {"precision": "tf32"},
        "rows": rows | rounded,
        "seconds": seconds | {"vaekit, bf16": [0.5e-3] * 4},
    }
    return {
        "full_float32": full,
        "full_tf32": half,
        "whole": {
            "models": 121,
            "steps": 10_000,
            "rows": {"float32": {"floor_seconds": 2.0}, "bf16": {"floor_seconds": 2.0}},
            "seconds": {"float32": [10.0, 9.0, 8.0], "bf16": [4.0]},
        },
        "sweeps": {
            "seconds": {"bf16": 14.94},
            "stages": {"bf16": {"train": 8.02, "measure": 2.0, "baseline": 0.51}},
        },
    }
