"""The doctor: probes that work, fail, crash and hang; limits of a control group."""

import importlib.util
from pathlib import Path

import pytest

from quicksurf.app.doctor import (
    GPU_PROBES,
    Machine,
    Probe,
    cpu_quota,
    examine,
    machine,
    memory_bytes,
    probe,
    report,
)


def test_a_probe_that_works_reports_its_last_line() -> None:
    finding = probe(Probe("x", "print('noise'); print('3.1')", "fix"))
    assert finding.works
    assert finding.detail == "3.1"


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("import os; os.abort()", "killed by signal 6"),
        ("raise SystemExit(1)", "no message"),
    ],
)
def test_a_probe_that_fails_says_why(code: str, detail: str) -> None:
    finding = probe(Probe("x", code, "fix"))
    assert not finding.works
    assert finding.detail == detail


def test_a_probe_that_hangs_is_given_up() -> None:
    finding = probe(Probe("x", "import time; time.sleep(60)", "fix"), seconds=0.3)
    assert not finding.works
    assert "no answer within 0.3 s" in finding.detail


def test_a_probe_sees_what_is_installed_and_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shadow_of_a_package.py").write_text("")
    monkeypatch.chdir(tmp_path)
    assert not probe(Probe("x", "import shadow_of_a_package", "fix")).works


def test_findings_keep_the_order_of_the_probes() -> None:
    probes = (Probe("slow", "import time; time.sleep(0.2)", ""), Probe("quick", "print(1)", ""))
    assert [finding.name for finding in examine(probes)] == ["slow", "quick"]


def test_what_a_gpu_could_use_is_looked_for_only_beside_one() -> None:
    gpu = (Probe("nvcc", "print(12)", ""),)
    for code, names in (("raise SystemExit(1)", ["CUDA"]), ("print('a GPU')", ["CUDA", "nvcc"])):
        assert [finding.name for finding in examine((Probe("CUDA", code, ""),), gpu)] == names


def test_probes_of_the_gpu_are_optional_and_name_a_remedy() -> None:
    for gpu_probe in GPU_PROBES:
        compile(gpu_probe.code, gpu_probe.name, "exec")
        assert gpu_probe.remedy and not gpu_probe.required


def test_a_missing_tinycudann_is_named() -> None:
    if importlib.util.find_spec("tinycudann") is not None:
        pytest.skip("tinycudann is installed here")
    finding = probe(next(p for p in GPU_PROBES if p.name == "tinycudann"))
    assert not finding.works and "No module named 'tinycudann'" in finding.detail


def test_report_names_the_remedy_of_what_is_missing() -> None:
    found = examine(
        (
            Probe("good", "print('here')", "not this"),
            Probe("bad", "raise SystemExit(1)", "pip install bad"),
            Probe("extra", "raise SystemExit(1)", "not needed", required=False),
        )
    )
    text = report(Machine("Linux", "a processor", 4, 1.5, 8.0, "avx2"), found)
    assert "cores     4, of which the control group grants 1.5" in text
    assert "ok      good   here" in text
    assert "MISSING bad" in text
    assert "-> pip install bad" in text
    assert "absent  extra" in text
    assert "not this" not in text


def test_this_machine() -> None:
    computer = machine()
    assert computer.cores >= 1
    assert computer.memory_gb > 0.1
    assert computer.processor


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_cpu_quota(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_quota(tmp_path) == quota


def test_memory_limit_of_a_control_group(tmp_path: Path) -> None:
    unlimited = memory_bytes(tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_bytes(tmp_path) == unlimited
    (tmp_path / "memory.max").write_text("1000000\n")
    assert memory_bytes(tmp_path) == 1_000_000
