"""`quicksurf doctor`: check the installation and print the command that fixes each problem.

Importing a native module can hang or kill the process (a wheel built for other instructions), so each probe runs in a
subprocess with a time limit. nerfacc compiles its CUDA part at its first use, for minutes; it waits for ever on the
lock of an interrupted build, and without nvcc fails with an AttributeError on None. A fit does not need that part, and
probing does not start the build.
"""

import os
import platform
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from quicksurf.errors import INSTALL_TINYCUDANN

PROBE_SECONDS = 30.0  # a cold import of torch on a slow disk takes ten
REINSTALL = "pip install --force-reinstall --no-deps {}"
BUILD = "pip install --force-reinstall --no-deps .   (in the source folder; needs a C++ compiler)"


class Probe(NamedTuple):
    """A check: `code` runs in a fresh Python and prints a line."""

    name: str
    code: str
    remedy: str
    required: bool = True


class Finding(NamedTuple):
    """Outcome of a probe."""

    name: str
    works: bool
    detail: str
    remedy: str
    required: bool


class Machine(NamedTuple):
    """Resources that the process may use."""

    system: str
    processor: str
    cores: int
    """By affinity."""
    quota: float | None
    """Cores granted by the control group, None without a limit."""
    memory_gb: float
    instructions: str


def _package(name: str, module: str, distribution: str) -> Probe:
    return Probe(name, f"import {module} as m; print(m.__version__)", REINSTALL.format(distribution))


def _back_end(name: str, remedy: str, required: bool = True) -> Probe:
    code = f"from quicksurf import kernels; b = kernels.load('{name}'); print(b.device, '-', b.reason)"
    return Probe(f"back end {name}", code, remedy, required)


PROBES = (
    Probe("torch", "import torch; print(torch.__version__)", "pip install 'torch>=2.6,<2.14'"),
    Probe(
        "native kernels",
        "import torch, quicksurf.kernels._native as n; print(n.instruction_set(), '-', n.__file__)",
        BUILD,
    ),
    _back_end("cpu", BUILD),
    _back_end("torch", REINSTALL.format("torch")),
    _package("nerfacc", "nerfacc", "nerfacc"),
    _package("camera poses (pycolmap)", "pycolmap", "pycolmap"),
    _package("features (OpenCV)", "cv2", "opencv-python-headless"),
    _package("HEIC photos", "pillow_heif", "pillow-heif"),
    _package("video (PyAV)", "av", "av"),
    _package("mesh (PyMCubes)", "mcubes", "pymcubes"),
    Probe(
        "automatic masks",
        "from quicksurf.capture.automatic_masks.network import find_network, load_saliency; "
        "load_saliency(); print(find_network())",
        "optional: pip install 'quicksurf[masks]' (Python below 3.13)",
        required=False,
    ),
    Probe(
        "CUDA",
        "import torch; assert torch.version.cuda, 'torch is its build without CUDA'; "
        "assert torch.cuda.is_available(), 'no CUDA device'; print(torch.cuda.get_device_name())",
        "not needed: the cpu back end works without a GPU; with one, install its driver and torch's CUDA build",
        required=False,
    ),
)

# Run only if the probe named CUDA works.
GPU_PROBES = (
    _back_end("cuda", "use --device cpu, and send this output with a bug report", required=False),
    Probe(
        "tinycudann",
        "import tinycudann, torch; e = tinycudann.Encoding(3, {'otype': 'Identity'}, dtype=torch.float32); "
        "print(e(torch.ones(1, 3, device='cuda')).shape and 'works')",
        f"optional, makes fits faster: {INSTALL_TINYCUDANN} (needs nvcc of the CUDA version that torch was built for)",
        required=False,
    ),
    Probe(
        "nvcc",
        "import torch.utils.cpp_extension as e, pathlib as p, subprocess as s; "
        "assert e.CUDA_HOME, 'no CUDA toolkit: neither CUDA_HOME nor nvcc on PATH'; "
        "print(s.run([p.Path(e.CUDA_HOME) / 'bin/nvcc', '--version'], capture_output=True, text=True, check=True)"
        ".stdout.strip().splitlines()[-1])",
        "optional, compiles tinycudann and nerfacc's CUDA part: install the toolkit that torch.version.cuda names, "
        "and set CUDA_HOME",
        required=False,
    ),
    Probe(
        "ninja",
        "import torch.utils.cpp_extension as e; e.verify_ninja_availability(); print('works')",
        "optional, builds nerfacc's CUDA part: pip install ninja",
        required=False,
    ),
    Probe(
        "nerfacc's CUDA part",
        "import pathlib; import torch.utils.cpp_extension as e; from importlib.util import find_spec; "
        "folder = pathlib.Path(e._get_build_directory('nerfacc_cuda', verbose=False)); "
        "assert not (folder / 'lock').exists(), f'an interrupted build left {folder}: delete it'; "
        "built = find_spec('nerfacc.csrc') is not None or (folder / 'nerfacc_cuda.so').exists(); "
        "assert built, 'not built yet'; print('built')",
        "not needed by quicksurf; nerfacc's own functions build it at their first use, with nvcc and ninja",
        required=False,
    ),
)


def machine() -> Machine:
    """Describe the machine without the native kernels, which may be broken."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    name, flags = _processor()
    known = ("avx512f", "avx512_bf16", "amx_bf16", "avx2", "fma", "asimd", "sve")
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=name,
        cores=cores,
        quota=cpu_quota(Path("/sys/fs/cgroup")),
        memory_gb=memory_bytes(Path("/sys/fs/cgroup")) / 1e9,
        instructions=" ".join(flag for flag in known if flag in flags) or "unknown",
    )


def cpu_quota(cgroup: Path) -> float | None:
    """Read the cores granted by a control group of version 2 (cpu.max) or 1; None without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return None if quota == "max" or int(quota) <= 0 else int(quota) / int(period)


def memory_bytes(cgroup: Path) -> int:
    """Measure the memory the process may use: the machine's, or the control group's limit where that is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (cgroup / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total


def probe(probe: Probe, seconds: float = PROBE_SECONDS) -> Finding:
    """Run one probe in a subprocess, which may crash, fail or hang beyond `seconds`."""
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path if entry)
    try:
        with tempfile.TemporaryDirectory() as nowhere:  # a source folder must not shadow packages
            done = subprocess.run(
                [sys.executable, "-c", probe.code],
                capture_output=True,
                text=True,
                timeout=seconds,
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                cwd=nowhere,
            )
        works = done.returncode == 0
        lines = (done.stdout if works else done.stderr).strip().splitlines()
        if done.returncode < 0:
            lines.append(f"killed by signal {-done.returncode}")
    except subprocess.TimeoutExpired:
        works, lines = False, [f"no answer within {seconds:g} s"]
    detail = lines[-1] if lines else "no message"
    return Finding(probe.name, works, detail, probe.remedy, probe.required)


def examine(probes: tuple[Probe, ...] = PROBES, gpu_probes: tuple[Probe, ...] = GPU_PROBES) -> list[Finding]:
    """Run the probes, two at a time, and `gpu_probes` if the one named CUDA works; findings keep their order."""
    with ThreadPoolExecutor(2) as pool:
        findings = list(pool.map(probe, probes))
        if any(finding.name == "CUDA" and finding.works for finding in findings):
            findings += pool.map(probe, gpu_probes)
    return findings


def report(computer: Machine, findings: list[Finding]) -> str:
    """Format the findings for a terminal or a bug report."""
    quota = "" if computer.quota is None else f", of which the control group grants {computer.quota:g}"
    lines = [
        f"quicksurf {_version('quicksurf')}, Python {platform.python_version()}, {sys.executable}",
        f"machine   {computer.system}",
        f"processor {computer.processor} ({computer.instructions})",
        f"cores     {computer.cores}{quota}",
        f"memory    {computer.memory_gb:.1f} GB",
        "",
    ]
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        mark = "ok     " if finding.works else "MISSING" if finding.required else "absent "
        lines.append(f"{mark} {finding.name:<{width}}  {finding.detail}")
        if not finding.works:
            lines.append(f"        {'':<{width}}  -> {finding.remedy}")
    return "\n".join(lines)


def _processor() -> tuple[str, set[str]]:
    """Name and instruction-set flags, from /proc/cpuinfo if there is one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine(), set()
    entries: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        entries.setdefault(name.strip(), value.strip())
    flags = entries.get("flags", entries.get("Features", ""))
    return entries.get("model name", platform.machine()), set(flags.split())


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"
