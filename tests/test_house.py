"""The rules of the house that a machine can check, so that no reviewer has to.

Each rule is a function from source text to the places that break it, and each is tried on a text
that breaks it: a rule that cannot fail protects nothing.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ("vaekit", "kernels")
EVERYWHERE = ("vaekit", "kernels", "bench", "tests")

# Who may import whom: a module imports only from the lines above its own (a package also from
# itself). A new module gets a place here.
LAYERS = (
    {"compiler", "config", "digest", "errors", "host", "interrupt"}
    | {"probe", "products", "progress", "theory"},
    {"files", "processes"},
    {"checkpoint", "data", "machine", "metrics", "model", "results"},
    {"estimators", "objective", "state"},
    {"adam"},
    {"compiled_step", "step"},
    {"axis_scores", "fresh", "parts"},
    {"block", "engine"},
    {"stack"},
    {"keeper"},
    {"evaluate", "figures", "journal", "train"},
    {"memory", "report", "rundir", "shard"},
    {"launch"},
    {"sweep"},
    {"study"},
    {"cli"},
    {"__main__"},
)
SCREENS = {"click", "jinja2", "matplotlib", "rich"}
FILES = {"h5netcdf", "h5py", "vaekit.files", "vaekit.results", "xarray"}
FORBIDDEN = {
    "config": SCREENS | FILES | {"torch"},
    "data": SCREENS | FILES,
    "model": SCREENS | FILES,
    "theory": SCREENS | FILES | {"torch"},
    "train": SCREENS | FILES,
    "figures": {"torch", "vaekit_kernels", "scipy"},
    "report": {"torch", "vaekit_kernels", "scipy"},
}


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def imported(text: str) -> Iterator[tuple[int, str]]:
    """Every module that a text imports, at any depth; `from a import b` counts as a and a.b."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{name.name}") for name in node.names)


def within(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def triton_imports(text: str) -> list[int]:
    return [line for line, module in imported(text) if within(module, {"triton"})]


def our_imports(text: str) -> list[int]:
    return [line for line, module in imported(text) if within(module, {"vaekit", "bench", "tests"})]


def words(pattern: str) -> Callable[[str], list[int]]:
    """Lines whose code (strings and comments aside) matches a pattern."""

    def find(text: str) -> list[int]:
        lines = []
        for node in ast.walk(ast.parse(text)):
            name = {ast.Attribute: "attr", ast.Name: "id", ast.alias: "name"}.get(type(node))
            if name and re.fullmatch(pattern, getattr(node, name)):
                lines.append(node.lineno)
        return sorted(lines)

    return find


def blind_handlers(text: str) -> list[int]:
    """Handlers of Exception; those of everything that do not raise again what they caught."""
    lines = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "BaseException"
            raises = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
            if re.search(r"\bException\b", caught) or ("BaseException" in caught and not raises):
                lines.append(node.lineno)
    return lines


def swallowed_assertions(text: str) -> list[int]:
    """Handlers of AssertionError that do not raise, and its `suppress`: no such test can fail."""
    lines = []
    for node in ast.walk(ast.parse(text)):
        caught = ""
        if isinstance(node, ast.ExceptHandler) and node.type:
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            caught = "" if raises else ast.unparse(node.type)
        elif isinstance(node, ast.Call) and "suppress" in ast.unparse(node.func):
            caught = " ".join(ast.unparse(argument) for argument in node.args)
        if "AssertionError" in caught:
            lines.append(node.lineno)
    return lines


# rule, the folders it holds in, the function, and a text that breaks it on its last line
RULES: dict[str, tuple[tuple[str, ...], Callable[[str], list[int]], str]] = {
    "triton is imported under kernels/ alone": (
        ("vaekit", "bench"),
        triton_imports,
        "def late():\n    import triton.language as tl",
    ),
    "vaekit_kernels imports nothing of ours": (
        ("kernels",),
        our_imports,
        "from vaekit import config",
    ),
    "nothing imports bench or tests": (
        LIBRARY,
        lambda text: [line for line, name in imported(text) if within(name, {"bench", "tests"})],
        "import bench.timing",
    ),
    "no atomics in kernels": (("kernels",), words(r"atomic_\w+"), "tl.atomic_add(x, 1)"),
    "no autotuner in kernels": (("kernels",), words(r"autotune"), "f = triton.autotune"),
    "no libdevice in kernels": (
        ("kernels",),
        words(r"libdevice"),
        "from triton.language.extra import libdevice",
    ),
    "no block pointers in kernels": (
        ("kernels",),
        words(r"make_block_ptr"),
        "p = tl.make_block_ptr(x)",
    ),
    "no prints in the library": (
        LIBRARY,
        words(r"print|device_print"),
        "print('here')",
    ),
    "no environment variables": (
        EVERYWHERE,
        words(r"environ|getenv|putenv"),
        "import os\nos.environ['A'] = '1'",
    ),
    "no handler of everything": (
        EVERYWHERE,
        blind_handlers,
        "try:\n    f()\nexcept Exception:\n    raise",
    ),
    "no assertion is swallowed": (
        ("bench", "tests"),
        swallowed_assertions,
        "def test_it():\n    try:\n        assert f()\n    except AssertionError:\n        pass",
    ),
}
# The interpreter is switched on before Triton is imported, and rich's console has a print.
EXEMPT = {
    ("no environment variables", "tests/conftest.py"),
    ("no prints in the library", "vaekit/progress.py"),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_sources_keep_the_rule(rule: str) -> None:
    folders, broken, _ = RULES[rule]
    found = [
        f"{path}:{line}"
        for path, text in sources(*folders)
        if (rule, path) not in EXEMPT
        for line in broken(text)
    ]
    assert not found


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_sees_a_breach(rule: str) -> None:
    _, broken, breach = RULES[rule]
    assert broken(breach)
    assert not broken("import torch\n\ntry:\n    x = torch.ones(1)\nexcept OSError:\n    raise\n")


def test_a_handler_of_everything_may_clean_up_and_raise() -> None:
    assert not blind_handlers("try:\n    f()\nexcept BaseException:\n    g()\n    raise\n")
    assert blind_handlers("try:\n    f()\nexcept:\n    g()\n") == [3]


def layer(module: str) -> int:
    """The line of LAYERS that holds the module or package directly under `vaekit`."""
    places = [number for number, names in enumerate(LAYERS) if module in names]
    assert len(places) == 1, f"{module} needs one place in LAYERS"
    return places[0]


def vaekit_module(path: str) -> str:
    return path.removeprefix("vaekit/").removesuffix(".py").split("/")[0]


def late_imports(path: str, text: str) -> list[str]:
    """Imports of ours that go down or sideways in LAYERS."""
    own = vaekit_module(path)
    known = set().union(*LAYERS) | {vaekit_module(name) for name, _ in sources("vaekit")}
    found = []
    for line, module in imported(text):
        parts = module.split(".")
        if parts[0] != "vaekit" or len(parts) < 2 or parts[1] not in known or parts[1] == own:
            continue
        if layer(parts[1]) >= layer(own):
            found.append(f"{path}:{line} imports {module}")
    return found


def test_imports_go_one_way() -> None:
    for path, text in sources("vaekit"):
        if path != "vaekit/__init__.py":
            assert not late_imports(path, text)


def test_an_import_the_wrong_way_is_seen() -> None:
    assert late_imports("vaekit/train.py", "from vaekit.sweep import run_sweep")
    assert late_imports("vaekit/train.py", "from vaekit import cli")
    assert late_imports("vaekit/model.py", "from vaekit.data import draw")
    assert not late_imports("vaekit/figures/maps.py", "from vaekit.figures.style import x")


@pytest.mark.parametrize("module", FORBIDDEN)
def test_a_module_knows_nothing_that_is_not_its_business(module: str) -> None:
    files = [item for item in sources("vaekit") if vaekit_module(item[0]) == module]
    assert files
    for path, text in files:
        found = [name for _, name in imported(text) if within(name, FORBIDDEN[module])]
        assert not found, path


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_file_of_a_package_is_shipped() -> None:
    patterns = project()["tool"]["setuptools"]["package-data"]["*"]
    for root in ("vaekit", "kernels/vaekit_kernels"):
        for path in (ROOT / root).rglob("*"):
            if path.is_file() and path.suffix not in {".py", ".pyc"}:
                assert any(fnmatch(path.name, pattern) for pattern in patterns), path
        for folder in {path.parent for path in (ROOT / root).rglob("*.py")}:
            assert (folder / "__init__.py").is_file(), folder


def requirement_names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", text).group().lower() for text in requirements}


def test_every_dependency_is_used() -> None:
    used = {name.split(".")[0] for _, text in sources(*LIBRARY) for _, name in imported(text)}
    if any('engine="h5netcdf"' in text for _, text in sources("vaekit")):
        # xarray loads it by this name, and it loads h5py.
        used |= {"h5netcdf", "h5py"}
    # Where a package is imported by another name than it is installed by.
    used |= {"scikit-learn"} if "sklearn" in used else set()
    asked = requirement_names(project()["project"]["dependencies"])
    assert {name.replace("-", "_") for name in asked} <= {name.replace("-", "_") for name in used}


def test_everything_that_is_asked_for_is_pinned() -> None:
    groups = project()["dependency-groups"]
    asked = requirement_names(
        project()["project"]["dependencies"] + groups["test"] + groups["lint"]
    )
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert asked <= {pin.partition("==")[0] for pin in pins}
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", pin) for pin in pins)
    assert len(pins) == len({pin.partition("==")[0] for pin in pins})


def imports_of(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nsys.stdout.write(' '.join(sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return set(done.stdout.split())


def test_importing_vaekit_is_cheap() -> None:
    loaded = imports_of("import vaekit; vaekit.__version__")
    assert not loaded & {"torch", "xarray", "numpy", "pydantic", "matplotlib", "click"}


def test_the_public_names_are_there() -> None:
    import vaekit

    assert set(vaekit.__all__) == set(dir(vaekit)) == {"__version__", *vaekit._HOME}
    for name in vaekit.__all__:
        assert getattr(vaekit, name)
    with pytest.raises(AttributeError, match="no attribute 'sweeep'"):
        vaekit.sweeep  # noqa: B018  # the attribute's lookup is what is tried


def test_the_torch_path_never_imports_triton() -> None:
    """With Triton made impossible to import, a model trains: macOS and Windows have none."""
    loaded = imports_of(
        "sys.path[:0] = ['.', 'kernels']; sys.modules['triton'] = None\n"
        "import torch\n"
        "from vaekit.config import SweepConfig\n"
        "from vaekit.progress import Silent\n"
        "from vaekit.stack import Stack\n"
        "from vaekit.train import train\n"
        "config = SweepConfig(mu=(0,), beta=(1,), steps=2, hidden=(4,), batch=2)\n"
        "train(config, Stack((0.0,), (0,), (1.0,)), torch.device('cpu'), Silent())"
    )
    assert "vaekit_kernels" in loaded


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readmes_example_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As it stands, except that the preset it starts from is smaller."""
    from vaekit.config import PRESETS

    tiny = {"steps": 4, "hidden": (4,), "batch": 4, "grid": 2, "tile": 2, "latents": 2}
    tiny |= {"evaluation_draws": 64, "baseline_seeds": 2}
    monkeypatch.setitem(PRESETS, "smoke", {**PRESETS["smoke"], **tiny, "device": "cpu"})
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", readme(), re.DOTALL)
    space: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), space)
    assert dict(space["later"].sizes) == dict(space["results"].sizes)
    assert (tmp_path / "runs" / "example" / "report.html").is_file()


def test_the_readmes_commands_are_the_ones_that_are_checked() -> None:
    command = "python -m pip install nox && python -m nox -s tests"
    assert f"    {command}\n" in readme()
    assert f"\n{command}" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_readmes_flags_exist() -> None:
    from bench.__main__ import command_line
    from vaekit.cli import cli

    known = {name for command in cli.commands.values() for o in command.params for name in o.opts}
    known |= set(command_line()._option_string_actions)
    given = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", readme())) - {"--help"}
    assert given
    assert given <= known
