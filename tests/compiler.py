"""Cross-compiles every kernel launch of the ops for cards that need not be here.

The ops are called on CPU tensors with their kernels replaced by recorders, so what is compiled is
what a launch would build: the same arguments, constants, block sizes and options. The resources
are read from the binary itself, by the disassembler of Triton's own wheel (NVIDIA) or from the
assembly's metadata (AMD).
"""

from __future__ import annotations

import multiprocessing
import re
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from resources import Measured, Resources, mix
from vaekit_kernels import Draw, float_ids, generator, latent, launch, pixel, training_step
from vaekit_kernels.training_step import FusedStep, Network, Precision

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
MODULES = (generator, latent, pixel, training_step)
POINTERS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float64: "*fp64",
    torch.int64: "*i64",
}
FLOATS = torch.zeros(1)  # stands for any float32 pointer
INT32_MAX = 2**31 - 1
ALIGNED = [["tt.divisibility", 16]]
INSTRUCTION = 16  # bytes of one, on every NVIDIA card since sm_70


@dataclass(frozen=True)
class Launch:
    """One recorded launch: the kernel, what it was called with, and the compiler's options."""

    kernel: Any
    arguments: dict[str, Any]
    options: dict[str, Any]

    @property
    def name(self) -> str:
        return self.kernel.__name__.strip("_").removesuffix("_kernel")

    @property
    def label(self) -> str:
        """The name, with the sizes of the product that the kernel is compiled for, if any."""
        rows = self.arguments.get("K", self.arguments.get("LP"))
        columns = self.arguments.get("N")
        sizes = [str(size) for size in (rows, columns) if size and "PRECISION" in self.arguments]
        return " ".join([self.name, "x".join(sizes)]).strip()


class Recorder:
    """Stands in for a kernel and keeps its launches."""

    def __init__(self, kernel: Any, launches: list[Launch]) -> None:
        self.kernel = kernel
        self.launches = launches

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        assert 0 < grid[0] <= INT32_MAX

        def run(*values: Any, **named: Any) -> None:
            names = [parameter.name for parameter in self.kernel.params]
            arguments = dict(zip(names, values, strict=False)) | named
            options = {name: arguments.pop(name) for name in list(arguments) if name not in names}
            self.launches.append(Launch(self.kernel, arguments, options))

        return run


@contextmanager
def recorded(architecture: str) -> Iterator[list[Launch]]:
    """Record the launches of the ops as they would be on an architecture."""
    launches: list[Launch] = []
    with mock.patch.object(launch, "architecture", return_value=architecture):
        patches = [
            mock.patch.object(module, name, Recorder(value, launches))
            for module in MODULES
            for name, value in vars(module).items()
            if isinstance(value, JITFunction) and name.endswith("_kernel")
        ]
        for patch in patches:
            patch.start()
        try:
            yield launches
        finally:
            for patch in patches:
                patch.stop()


def _source(launch: Launch) -> ASTSource:
    """Specialise as the runtime does: fold constants, ones and Nones in, note multiples of 16."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], list[list[object]]] = {}
    for parameter in launch.kernel.params:
        name, value = parameter.name, launch.arguments[parameter.name]
        special = type(value) is int and not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or (special and value == 1):
            signature[name] = "constexpr"
            constants[name] = value
        elif isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
            if not parameter.do_not_specialize_on_alignment:
                attributes[parameter.num,] = ALIGNED  # what torch allocates is aligned
        elif isinstance(value, int):
            signature[name] = "i32" if abs(value) <= INT32_MAX else "i64"
            if special and value % 16 == 0:
                attributes[parameter.num,] = ALIGNED
        else:
            signature[name] = "fp32"
    return ASTSource(launch.kernel, signature, constants, attributes)


def build(launch: Launch, architecture: str) -> Any:
    """Compile one launch for an architecture."""
    return triton.compile(
        _source(launch), target=TARGETS[architecture], options=dict(launch.options)
    )


def measure(built: Sequence[Any], architecture: str) -> list[Resources]:
    """Read the resources of an architecture's binaries."""
    if TARGETS[architecture].backend == "hip":
        return [_amd(compiled) for compiled in built]
    codes = _instructions([compiled.asm["cubin"] for compiled in built], architecture)
    return [_nvidia(*each) for each in zip(built, codes, strict=True)]


def _nvidia(compiled: Any, codes: list[str]) -> Resources:
    with _on_disk(compiled.asm["cubin"]) as path:
        usage = _output(triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", path)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found, usage
    return Resources(
        registers=int(found[1]),
        spills=sum(code.split(".")[0] in ("LDL", "STL") for code in codes),
        stack=int(found[2]),
        shared=compiled.metadata.shared,
        instructions=sum(code != "NOP" for code in codes),
        wide=sum(code.startswith(("LDG", "STG")) and ".128" in code for code in codes),
        mix=mix(codes),
    )


def _instructions(cubins: list[bytes], architecture: str) -> list[list[str]]:
    """Disassemble the code of all binaries as if it were one: each start takes 0.4 s."""
    code = [_code(cubin) for cubin in cubins]
    with _on_disk(b"".join(code)) as path:
        tool, kind = triton.knobs.nvidia.nvdisasm.path, architecture.replace("sm_", "SM")
        text = _output(tool, "--no-dataflow", "--binary", kind, path)
    line = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", re.M)
    found = {int(address, 16): name for address, name in line.findall(text)}
    ends = list(accumulate(map(len, code), initial=0))
    assert list(found) == list(range(0, ends[-1], INSTRUCTION)), text[:1000]
    return [[found[at] for at in range(*ends_, INSTRUCTION)] for ends_ in pairwise(ends)]


def _code(cubin: bytes) -> bytes:
    """Cut the instructions of the one kernel out of its binary, which is an ELF file of 64 bits."""
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    # Of each section: where its name is, and where and how long it is itself.
    sections = [
        struct.unpack_from("<I20xQQ", cubin, table + size * index) for index in range(count)
    ]
    (code,) = (
        cubin[start : start + length]
        for name, start, length in sections
        if cubin.startswith(b".text.", sections[names][1] + name)
    )
    return code


@contextmanager
def _on_disk(content: bytes) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.bin"
        path.write_bytes(content)
        yield str(path)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _amd(compiled: Any) -> Resources:
    text = compiled.asm["amdgcn"]

    def field(name: str) -> int:
        found = re.search(rf"\.{name}:\s+(\d+)", text)
        assert found, name
        return int(found[1])

    codes = re.findall(r"^\s+((?:[sv]|ds|global|buffer|flat|scratch)_\w+)", text, re.M)
    assert codes, text
    return Resources(
        registers=field("vgpr_count"),
        spills=field("vgpr_spill_count") + field("sgpr_spill_count"),
        stack=field("private_segment_fixed_size"),
        shared=compiled.metadata.shared,
        instructions=len(codes),
        wide=sum(
            code.startswith(("global", "buffer")) and code.endswith("dwordx4") for code in codes
        ),
        mix=mix(codes),
    )


def generator_case(batch: int = 128, **options: Any) -> Callable[[], None]:
    def call() -> None:
        mu = torch.zeros(33)
        labels = torch.zeros(33, dtype=torch.int64)
        generator.sigmoid_grid(mu, labels, labels, 1, batch=batch, **options)

    return call


def render_case(dtype: torch.dtype = torch.float32) -> Callable[[], None]:
    def call() -> None:
        generator.render(torch.zeros(100, 9, dtype=dtype), grid=3, tile=7)

    return call


def latent_case(
    *,
    kl: str = "analytic",
    drawn: bool = True,
    models: int = 4,
    batch: int = 128,
    dtype: torch.dtype = torch.float32,
) -> Callable[[], None]:
    def call() -> None:
        mean = torch.zeros(models, batch, 9, dtype=dtype, requires_grad=True)
        logvar = torch.zeros_like(mean)
        labels = torch.zeros(models, dtype=torch.int64)
        noise = Draw(labels, float_ids(labels), 1) if drawn else torch.zeros(models, batch, 9)
        z, terms = latent.reparameterise(mean, logvar, noise, kl=kl)
        (z.float().sum() + terms.sum()).backward()

    return call


def pixel_case(
    *,
    models: int = 22,
    streams: int = 2,
    batch: int = 128,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Callable[[], None]:
    def call() -> None:
        output = torch.zeros(models, batch, 441, dtype=dtype, requires_grad=True)
        image = torch.zeros(streams, batch, 441)
        pixel.pixel_nll(output, image, **options).sum().backward()

    return call


def step_case(
    precision: Precision,
    *,
    hidden: tuple[int, ...] = (256, 128),
    models: int = 22,
    streams: int = 2,
    batch: int = 128,
    drawn: bool = True,
    **options: Any,
) -> Callable[[], None]:
    def call() -> None:
        encoder = tuple(pairwise((441, *hidden, 18)))
        decoder = tuple(pairwise((9, *reversed(hidden), 441)))
        step = FusedStep(
            Network(encoder, decoder, **options),
            streams=streams,
            learning_rate=torch.zeros(models, dtype=torch.float64),
            stopped=torch.zeros(models, dtype=torch.int64),
            batch=batch,
            precision=precision,
        )
        labels = torch.zeros(models, dtype=torch.int64)
        noise = Draw(labels, labels, 1) if drawn else torch.zeros(models, batch, 9)
        step(torch.zeros(streams, batch, 441), noise, torch.zeros(models))

    return call


# What is compiled: every kernel and every branch of it at the sizes of the default network, the
# narrow dtypes once, a batch whose sizes are no multiples of anything, and a batch of one: Triton
# compiles arguments that are multiples of 16, and those that are 1, to kernels of their own.
CASES: dict[str, Callable[[], None]] = {
    "sigmoid": generator_case(),
    "linear": generator_case(linear=True),
    "noise-free": generator_case(noise_variance=0.0),
    "ragged": generator_case(batch=127),
    "one": generator_case(batch=1),
    "one tile": generator_case(grid=1),
    "fp32": render_case(),
    "bf16": render_case(torch.bfloat16),
    "analytic, drawn": latent_case(),
    "analytic, given": latent_case(drawn=False),
    "sample, drawn": latent_case(kl="sample"),
    "sample, given": latent_case(kl="sample", drawn=False),
    "analytic, drawn, bf16": latent_case(dtype=torch.bfloat16),
    "analytic, drawn, fp16": latent_case(dtype=torch.float16),
    "analytic, drawn, ragged": latent_case(batch=127),
    "analytic, drawn, one": latent_case(models=1, batch=1),
    "gaussian": pixel_case(),
    "gaussian, linear": pixel_case(linear=True),
    "bernoulli": pixel_case(likelihood="bernoulli"),
    "gaussian, bf16": pixel_case(dtype=torch.bfloat16),
    "gaussian, fp16": pixel_case(dtype=torch.float16),
    "gaussian, ragged": pixel_case(models=3, streams=3, batch=127),
    "gaussian, one": pixel_case(models=1, streams=1, batch=1),
    "step, tf32": step_case("tf32"),
    "step, ieee": step_case("ieee"),
    "step, tf32x3": step_case("tf32x3", hidden=(256,)),
    "step, bf16": step_case("bf16", hidden=(256,)),
    "step, tf32, sample, given, bernoulli": step_case(
        "tf32", hidden=(256,), kl="sample", drawn=False, likelihood="bernoulli"
    ),
    "step, tf32, linear, ragged": step_case("tf32", hidden=(256,), batch=127, linear=True),
    "step, tf32, many tiles": step_case("tf32", hidden=(256,), batch=2112),
    "step, tf32, one": step_case("tf32", hidden=(), models=1, streams=1, batch=1),
}

# Of those, every kernel in every precision, without the rarer options, dtypes and sizes.
USUAL = (
    *("sigmoid", "fp32", "analytic, drawn", "gaussian", "bernoulli"),
    *("step, tf32", "step, ieee", "step, tf32x3", "step, bf16"),
)


def launches(architecture: str, cases: Iterable[str] = CASES) -> Iterator[tuple[str, Launch]]:
    """Every launch of the cases on an architecture, each with the name that it is listed under."""
    for case in cases:
        # AMD's compiler has no such product.
        if architecture == "gfx942" and "tf32x3" in case:
            continue
        with recorded(architecture) as made:
            CASES[case]()
        for launch_ in made:
            yield f"{launch_.label} [{case}]", launch_


def measure_all(cases: Sequence[str], architecture: str) -> dict[str, Resources]:
    """Compile the cases' launches for an architecture and read their resources, by listed name."""
    built = {name: build(launch_, architecture) for name, launch_ in launches(architecture, cases)}
    return dict(zip(built, measure(list(built.values()), architecture), strict=True))


def measure_everywhere(cases: Sequence[str] = tuple(CASES)) -> Measured:
    """Compile the cases for every architecture and read their resources."""
    # Processes, since the compiler holds the interpreter's lock; spawned, since torch has threads.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        return dict(zip(TARGETS, pool.map(partial(measure_all, cases), TARGETS), strict=True))
