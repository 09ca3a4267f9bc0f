"""Score the information estimators on channels whose information is known: `nox -s estimators`.

Not a timing but a weighing: bias and error of every estimator at two sample sizes, as a Markdown
table and the raw estimates beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch

from vaekit.estimators import ESTIMATORS, estimate
from vaekit.estimators.channels import league
from vaekit.machine import device_model, threads, versions

CPU = torch.device("cpu")
ROWS = (1024, 8192)
REPEATS = 4


def measure(rows: tuple[int, ...], repeats: int) -> list[dict[str, object]]:
    """Estimate every channel with every estimator; each repeat has draws of its own."""
    records = []
    for channel in league():
        for count in rows:
            rng = np.random.default_rng(count)
            draws = [channel.draw(rng, count) for _ in range(repeats)]
            x = torch.tensor(np.array([draw[0] for draw in draws]))
            y = torch.tensor(np.array([draw[1] for draw in draws]))
            for name in ESTIMATORS:
                start = time.perf_counter()
                found = estimate(name, x, y, torch.arange(repeats))
                records.append(
                    {
                        "channel": channel.name,
                        "exact": channel.nats,
                        "rows": count,
                        "estimator": name,
                        "nats": [round(float(value), 5) for value in found.nats],
                        "limit": found.limit if math.isfinite(found.limit) else None,
                        "supported": found.supported.tolist(),
                        "seconds": round((time.perf_counter() - start) / repeats, 3),
                    }
                )
    return records


def table(records: list[dict[str, object]]) -> str:
    """Write bias and root mean squared error, a row for each channel and number of draws."""
    lines = [
        "| channel | exact | draws | " + " | ".join(ESTIMATORS) + " |",
        "|---|---|---|" + "---|" * len(ESTIMATORS),
    ]
    cells: dict[tuple[object, object, object], list[str]] = {}
    for record in records:
        error = np.array(record["nats"]) - record["exact"]
        text = f"{error.mean():+.2f} ({np.sqrt((error**2).mean()):.2f})"
        if not all(record["supported"]):
            text += " !"
        key = (record["channel"], record["exact"], record["rows"])
        cells.setdefault(key, []).append(text)
    for (channel, exact, rows), texts in cells.items():
        lines.append(f"| {channel} | {exact:.2f} | {rows:,} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("reports/estimators"))
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    options = parser.parse_args()
    with threads(1):
        records = measure(tuple(options.rows), options.repeats)
    text = table(records)
    print(text)
    cost = ", ".join(
        f"{name} {np.mean([r['seconds'] for r in records if r['estimator'] == name]):.2g}"
        for name in ESTIMATORS
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "README.md").write_text(
        "# Estimators of information against the truth\n\n"
        f"Bias and (root mean squared error) in nats over {options.repeats} sets of draws, made by "
        "`nox -s estimators`.\n`vaekit/estimators/channels.py` says what the channels are. A `!` "
        "marks where at least one estimate is above\nwhat so many draws support, and says so "
        "itself.\n\n"
        f"{text}\n\n"
        f"Seconds an estimate, on average, on one thread of {device_model(CPU)}, torch "
        f"{versions()['torch']}: {cost}.\n",
        encoding="utf-8",
    )
    # A record a line: programs read it, and people compare it.
    lines = ",\n".join(json.dumps(record) for record in records)
    (options.out / "estimates.json").write_text(
        f'{{"versions": {json.dumps(versions())},\n"estimates": [\n{lines}\n]}}\n',
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
