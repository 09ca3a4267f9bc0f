"""The benchmark's page: index.html, summary.md and figures, made from the stored samples alone."""

from __future__ import annotations

import base64
import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from bench.curves import FLOOR
from bench.errors import BenchError
from bench.peers import OURS, OURS_AGAIN, OURS_BF16, OURS_COMPILED, OWN
from bench.sections import SECTIONS, on_card
from bench.timing import ratio
from vaekit.figures import save_figure
from vaekit.files import write_whole

TEMPLATE = Path(__file__).with_name("report.html.j2")
# What a run has measured so far; gone when it is whole.
UNFINISHED = "training-unfinished"
# Samples that are made by themselves, maybe of another commit than training.json.
OTHERS = ("operations", "kernels", "demonstration")


def load(folder: Path) -> dict[str, Any]:
    """Read the samples of a machine.

    Raises:
        BenchError: there are none.
    """
    files = [folder / f"{name}.json" for name in ("training", UNFINISHED)]
    path = next((path for path in files if path.is_file()), None)
    if path is None:
        raise BenchError(f"{files[0]} is not there; `nox -s bench` without --report makes it")
    content = json.loads(path.read_text(encoding="utf-8"))
    for name in OTHERS:
        other = folder / f"{name}.json"
        if other.is_file():
            content[name] = json.loads(other.read_text(encoding="utf-8"))
    return content


def write_report(folder: Path) -> Path:
    """Write index.html, summary.md and figures/*.png of a machine's benchmark.

    Args:
        folder: reports/bench/<machine>, which holds training.json and what else was measured.

    Returns:
        The page.

    Raises:
        BenchError: there are no samples.
    """
    content = load(folder)
    pictures = folder / "figures"
    pictures.mkdir(exist_ok=True)
    parts = []
    for section in SECTIONS:
        if not measured(content, section.key):
            continue
        picture = ""
        if section.draw:
            path = pictures / f"{section.name}.png"
            save_figure(section.draw(content), path)
            picture = base64.b64encode(path.read_bytes()).decode()
        note = section.note if isinstance(section.note, str) else section.note(content)
        rows = section.rows(content) if section.rows else []
        parts.append(
            {
                "title": section.title,
                "name": section.name,
                "note": note,
                "picture": picture,
                "rows": rows,
                "long": section.long,
            }
        )
    write_whole(folder / "summary.md", summary(content, parts))
    page = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(TEMPLATE.read_text(encoding="utf-8"))
    write_whole(
        folder / "index.html",
        page.render(
            machine=content["provenance"]["machine"],
            source=folder.name,
            facts=facts(content),
            findings=findings(content),
            parts=parts,
        ),
    )
    return folder / "index.html"


def measured(content: dict[str, Any], key: str) -> bool:
    """Whether there is more of a part than the reason why there is not."""
    return bool(set(content.get(key, {})) - {"skipped", "provenance"})


def facts(content: dict[str, Any]) -> dict[str, str]:
    """How the samples were made, and what the machine could do while they were."""
    made = content["provenance"]
    found = {
        "command": made["command"],
        "commit": made["commit"],
        "date": made["date"],
        "machine": made["machine"],
        "versions": ", ".join(f"{k} {v}" for k, v in made["versions"].items() if k != "platform"),
        "platform": made["platform"],
    }
    for name in OTHERS:
        if "provenance" in content.get(name, {}):
            other = content[name]["provenance"]
            found[f"{name}.json"] = f"{other['command']}, {other['commit']}, {other['date']}"
    if "seconds" in made:
        found["took"] = f"{made['seconds'] / 60:.1f} min up to the raw samples"
    ceilings = content.get("ceilings")
    if ceilings:
        found["copies"] = f"{ceilings['copy_bytes_per_second'] / 1e9:.1f} GB/s, read and written"
        if "read_bytes_per_second" in ceilings:
            found["reads"] = f"{ceilings['read_bytes_per_second'] / 1e9:.1f} GB/s"
        rates = ceilings["product_flops_per_second"]
        found["matmul"] = ", ".join(f"{v / 1e9:,.0f} GFLOP/s {k}" for k, v in rates.items())
        found["a call's overhead"] = f"{ceilings['seconds_per_call'] * 1e6:.1f} us"
    skipped = "; ".join(f"{name}: {why}" for name, why in all_skipped(content))
    found |= {"skipped": skipped} if skipped else {}
    lost = [section.title for section in SECTIONS if section.key not in content]
    return found | ({"not in these samples": "; ".join(lost)} if lost else {})


def all_skipped(content: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Everything that was not measured, and why."""
    for part in content.values():
        if isinstance(part, dict):
            yield from part.get("skipped", {}).items()


def findings(content: dict[str, Any]) -> list[str]:
    """What the samples say, in sentences."""
    found = []
    for key, products in (("full_float32", "float32"), ("full_tf32", "tf32")):
        if measured(content, key):
            full = content[key]
            found.append(f"{_cost(full, OURS)}, with {products} products.")
            found.append(_beside_the_nearest(full, OURS))
            if OURS_BF16 in full["rows"]:
                found.append(f"With bf16 products: {_cost(full, OURS_BF16)}.")
    if measured(content, "whole"):
        whole = content["whole"]
        times = ", ".join(
            f"{statistics.median(seconds):.1f} s with {name}"
            for name, seconds in whole["seconds"].items()
        )
        least = next(iter(whole["rows"].values()))["floor_seconds"]
        found.append(
            f"{whole['steps']:,} steps of {whole['models']} models take {times}; to read and write "
            f"weights and moments alone takes {least:.1f} s."
        )
    if measured(content, "peers"):
        found += _small_stack(content["peers"])
    if measured(content, "scaling"):
        curve = content["scaling"]["curve"]
        best = min(curve, key=lambda models: curve[models]["ms_per_model_step"])
        least = curve[best]
        found += [
            f"The cheapest stack is one of {best} models: {_time(least['ms_per_model_step'])}.",
            f"Its floor, {FLOOR[on_card(content)]}, is {_time(least['floor_ms'])}.",
        ]
    if measured(content, "peers"):
        _, low, high = content["peers"]["rows"][OURS_AGAIN]["ratio"]
        found.append(
            f"Against itself the engine reads {low:.3f} to {high:.3f}: that much is noise."
        )
    return found


def _small_stack(peers: dict[str, Any]) -> list[str]:
    rows = peers["rows"]
    found = [f"{_cost(peers, OURS)}.", _beside_the_nearest(peers, OURS)]
    if OURS_COMPILED in rows:
        cost = _time(rows[OURS_COMPILED]["ms_per_model_step"])
        found += [
            f"Compiled, as on a CPU for a sweep that repays it, they cost {cost}.",
            _beside_the_nearest(peers, OURS_COMPILED),
        ]
    return found


def _cost(peers: dict[str, Any], name: str) -> str:
    cost = _time(peers["rows"][name]["ms_per_model_step"])
    return f"{peers['models']} models of the default network cost {cost} a model-step"


def _time(ms: float) -> str:
    return f"{ms:.2f} ms" if ms >= 0.1 else f"{1e3 * ms:.2f} µs"


def _beside_the_nearest(peers: dict[str, Any], engine: str) -> str:
    """Hold an engine against the peer that comes nearest to it."""
    seconds = peers["seconds"]
    others = {name: ratio(seconds[name], seconds[engine]) for name in seconds if name not in OWN}
    nearest = min(others, key=lambda name: others[name][0])
    interval = "{:.2f} ({:.2f} to {:.2f})".format(*others[nearest])
    word = relation(seconds, nearest, engine)
    return f"That is {word} its nearest peer: {nearest} takes {interval} times as long."


def relation(seconds: Mapping[str, list[float]], name: str, engine: str) -> str:
    """Say where an engine stands beside a peer.

    It is ahead or behind where the whole interval is, of what the engine differs from itself too.
    """
    _, low, high = ratio(seconds[name], seconds[engine])
    _, same_low, same_high = ratio(seconds[OURS_AGAIN], seconds[OURS])
    if low > max(1.0, same_high):
        return "ahead of"
    return "behind" if high < min(1.0, same_low) else "level with"


def summary(content: dict[str, Any], parts: list[dict[str, Any]]) -> str:
    """The report as Markdown."""
    lines = ["# Benchmark", ""]
    lines += [f"- {name}: {value}" for name, value in facts(content).items()]
    lines += ["", *(f"- {sentence}" for sentence in findings(content))]
    for part in parts:
        lines += ["", f"## {part['title']}"]
        lines += ["", part["note"]] if part["note"] else []
        if part["picture"]:
            lines += ["", f"![{part['title']}](figures/{part['name']}.png)"]
        if part["rows"] and not part["long"]:
            head, *rows = part["rows"]
            lines += ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
            lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"
