"""Doctor: the JetPack table, faults that it recognises, and that it needs none of what it looks for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vitrim.exporter.runtime import doctor

RELEASE = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Wed Jan  8\n"


def jetson(root: Path, text: str) -> Path:
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc" / "nv_tegra_release").write_text(text)
    return root


def test_a_jetson_is_recognised(tmp_path: Path) -> None:
    checks = {check.name: check for check in doctor.examine(jetson(tmp_path, RELEASE), deep=False)}
    assert checks["jetson"].found == "L4T 36.4 = JetPack 6.1 and 6.2: TensorRT 10.3, CUDA 12.6, target jetpack-6"
    jetson(tmp_path, RELEASE.replace("R36", "R77"))
    assert next(check for check in doctor.examine(tmp_path, deep=False) if check.name == "jetson").state == "problem"


def test_a_broken_torchvision_is_explained() -> None:
    fault = "RuntimeError: operator torchvision::nms does not exist"
    checks = {check.name: check for check in doctor.examine(run=lambda code: (False, fault))}
    assert checks["import timm"].state == "problem"
    assert checks["import timm"].found.startswith(fault)
    assert "matching pair" in checks["import timm"].remedy
    assert "torchvision" in checks["import timm"].found


def test_a_timm_that_fails_otherwise_is_not_blamed_on_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = {check.name: check for check in doctor.examine(run=lambda code: (False, "SyntaxError: bad file"))}
    assert checks["import timm"].remedy == "pip install --force-reinstall timm"
    versions = {"timm": "1.0", "torch": "2.13.0+cpu", "torchvision": "0.28.0"}
    monkeypatch.setattr(doctor, "version_of", versions.get)
    fault = "RuntimeError: operator torchvision::nms does not exist"
    found = next(check for check in doctor.examine(run=lambda code: (False, fault)) if check.name == "import timm")
    assert found.remedy.endswith("torch torchvision --index-url https://download.pytorch.org/whl/cpu")
    assert "torch 2.13.0+cpu, torchvision 0.28.0" in found.found


def test_two_onnxruntimes_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "onnxruntime twice" not in {check.name for check in doctor.examine(deep=False)}
    monkeypatch.setattr(doctor, "exact_version", lambda name: "1.24.4" if name.startswith("onnxruntime") else None)
    found = next(check for check in doctor.examine(deep=False) if check.name == "onnxruntime twice")
    assert found.found == "onnxruntime 1.24.4 and onnxruntime-gpu 1.24.4"


def test_an_installed_tensorrt_is_tried_in_a_child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = doctor.is_there
    monkeypatch.setattr(doctor, "is_there", lambda name: name == "tensorrt" or real(name))

    def examined(said: str, root: Path = Path("/")) -> dict[str, doctor.Check]:
        answers = {"by_polygraphy": said, "tell_devices": "{}"}
        run = lambda code: (True, next((text for key, text in answers.items() if key in code), "1"))  # noqa: E731
        return {check.name: check for check in doctor.examine(root, run=run)}

    assert examined("works")["tensorrt engines"].state == "ok"
    assert examined("works")["tensorrt"].found == "installed outside pip"
    broken = examined("TensorRT cannot be imported (libnvdla_compiler.so: cannot open)", jetson(tmp_path, RELEASE))
    assert broken["tensorrt engines"].state == "problem"
    assert "nvidia-l4t-dla-compiler" in broken["tensorrt engines"].remedy


def test_what_a_child_is_asked_can_be_asked() -> None:
    """The code that runs in a child names modules and functions that are there, whatever this machine has."""
    asked: list[str] = []

    def run(code: str) -> tuple[bool, str]:
        asked.append(code)
        return True, "1"

    doctor._engines(run, Path("/"))
    doctor._dla(run)
    assert len(asked) == 2
    for code in asked:
        _, said = doctor.run_python(code)
        assert not re.search("ImportError|ModuleNotFoundError|AttributeError", said), said
        assert "TensorRT" in said or said in ("works", "0", "1", "2")


def test_a_jetson_has_a_gpu_without_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {check.name: check for check in doctor.examine(jetson(tmp_path, RELEASE), deep=False)}
    assert found["nvidia gpu"].state == "ok"
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho Failed to initialize NVML: version mismatch >&2; exit 18\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    found = {check.name: check for check in doctor.examine(jetson(tmp_path, RELEASE), deep=False)}
    assert (found["nvidia gpu"].state, found["nvidia gpu"].found) == (
        "problem",
        "Failed to initialize NVML: version mismatch",
    )


def test_little_memory_is_a_lack(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal:        2000000 kB\n")
    found = next(check for check in doctor.examine(tmp_path, deep=False) if check.name == "memory")
    assert (found.state, found.found) == ("problem", "1.9 GiB")


def test_every_lack_says_what_it_costs() -> None:
    for check in doctor.examine(deep=False):
        assert check.state in ("ok", "problem", "info")
        assert check.found
        if check.state == "problem":
            assert check.cost


def test_what_narrow_numbers_gain_here_is_said(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()

    def found(cpuinfo: str) -> tuple[str, str, str]:
        (tmp_path / "proc" / "cpuinfo").write_text(cpuinfo)
        check = next(one for one in doctor.examine(tmp_path, deep=False) if one.name == "narrow numbers")
        return check.state, check.found, check.cost

    slow = "int8 gains little, bf16 is computed in float32, fp16 is computed in float32"
    assert found("flags\t: fpu avx2\n") == ("info", "none is fast", slow)
    state, said, cost = found("Features\t: asimd asimdhp asimddp bf16\n")
    assert (state, said) == ("ok", "fast: int8 (Arm dotprod), fp16 (Arm fp16) (also Arm bf16)")
    assert cost == "bf16 is computed in float32"
    assert found("processor: 0\n")[:2] == ("info", "this system does not say what its processor has")


def providers_said(said: str, library: str = "None", root: Path = Path("/")) -> dict[str, doctor.Check]:
    """What doctor makes of onnxruntime's version and providers, and of TensorRT's library."""
    run = lambda code: (True, library if "tensorrt_library" in code else said)  # noqa: E731
    return {check.name: check for check in doctor._providers(run, root)}


def test_providers_and_their_pairs(tmp_path: Path) -> None:
    assert providers_said("1.31.1 CPUExecutionProvider")["onnxruntime providers"].state == "info"
    both = "TensorrtExecutionProvider CUDAExecutionProvider CPUExecutionProvider"
    found = providers_said(f"1.31.1 {both}", "11.4.0")
    assert found["onnxruntime providers"].found == both
    assert found["onnxruntime tensorrt"].found == "onnxruntime 1.31.1 with TensorRT 11.4.0"
    old = providers_said(f"1.24.4 {both}", "11.4.0")["onnxruntime tensorrt"]
    assert (old.state, old.remedy) == ("problem", "pip install 'onnxruntime-gpu>=1.27'")
    none = providers_said(f"1.24.4 {both}")["onnxruntime tensorrt"]
    assert (none.state, "LD_LIBRARY_PATH" in none.remedy) == ("problem", True)
    assert providers_said("1.24.4 CUDAExecutionProvider")["onnxruntime tensorrt"].state == "info"
    assert (
        "NVIDIA's own wheel" in providers_said("1.2 x", root=jetson(tmp_path, RELEASE))["onnxruntime providers"].remedy
    )


def test_tensorrt_for_another_cuda_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(**versions: str) -> None:
        monkeypatch.setattr(doctor, "exact_version", versions.get)

    def found(cuda: str | None) -> list[tuple[str, str]]:
        device = {"cuda": cuda} if cuda else None
        return [(check.name, check.state) for check in doctor._cuda_majors(lambda: device)]

    installed()
    assert found("12.6") == []
    installed(tensorrt_cu13="11.4.0")
    assert found("12.6") == [("tensorrt and cuda", "problem")]
    assert found("13.0") == [("tensorrt and cuda", "ok")]
    assert found(None) == [("tensorrt and cuda", "info")]
    assert "pip install tensorrt-cu12" in doctor._cuda_majors(lambda: {"cuda": "12.6"})[0].remedy
    installed(tensorrt_cu12="10.3.0", tensorrt_cu13="11.4.0")
    assert found("13.0") == [("tensorrt twice", "problem")]


@pytest.mark.parametrize(
    ("answer", "state", "found"),
    [
        ((True, "2"), "ok", "2 cores"),
        ((True, "0"), "info", "none that"),
        ((False, "ImportError: x"), "info", "unknown"),
    ],
)
def test_dla_cores_of_a_jetson(answer: tuple[bool, str], state: str, found: str) -> None:
    check = doctor._dla(lambda code: answer)
    assert (check.state, check.found.startswith(found)) == (state, True)


def test_the_cache_folder_is_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    monkeypatch.setenv("VITRIM_CACHE", str(folder))
    checks = {check.name: check for check in doctor.examine(deep=False)}
    assert (checks["cache folder"].state, checks["cache folder"].found) == ("ok", f"{folder}: 0 files, 0 MiB")
    assert not folder.exists()  # looked at, not made
    folder.mkdir()
    (folder / "a").write_bytes(b"0" * (3 << 20))
    assert doctor._cache(folder).found == f"{folder}: 1 files, 3 MiB"
    folder.chmod(0o777)
    assert (doctor._cache(folder).state, "VITRIM_CACHE" in doctor._cache(folder).remedy) == ("problem", True)
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert doctor._cache(folder).found.endswith("cannot be written")


def test_a_gpu_without_nvidia_smi_is_asked_of_the_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "cuda_device", lambda: {"gpu": "H200", "cuda": "13.0"})
    assert doctor._gpu(tmp_path).found == "H200, but no nvidia-smi"
    monkeypatch.setattr(doctor, "cuda_device", lambda: None)
    assert doctor._gpu(tmp_path).found == "no nvidia-smi"


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("TensorRT for RTX 1.7.1 builds engines here, but running one needs a GPU, and there is none", "ok"),
        ("not usable: TensorRT for RTX cannot be imported (libtensorrt_rtx.so.1: cannot open)", "problem"),
    ],
)
def test_an_installed_tensorrt_for_rtx_is_tried_in_a_child(
    said: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "is_there", lambda package: package == "tensorrt_rtx")
    found = doctor._rtx(lambda code: (True, said), deep=True)
    assert (found.name, found.state, found.found) == ("TensorRT for RTX", state, said)
    assert bool(found.cost) == (state == "problem")
    assert doctor._rtx(lambda code: (False, "ended with code -11"), deep=True).state == "problem"
    assert doctor._rtx(lambda code: (True, said), deep=False).state == "ok"


@pytest.mark.parametrize(("wheel", "remedy"), [(True, "pip install 'vitrim[rtx]'"), (False, "build on one of those")])
def test_a_machine_without_tensorrt_for_rtx_has_no_problem(
    wheel: bool, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "is_there", lambda package: False)
    monkeypatch.setattr(doctor, "has_rtx_wheel", lambda: wheel)
    found = doctor._rtx(lambda code: (True, ""), deep=True)
    assert (found.state, found.remedy) == ("info", remedy)
    assert "NVIDIA has wheels for Linux on x86_64 and aarch64 and for Windows" in found.found
    assert found.cost == "the target trt-rtx gets graphs, but no engines"


def test_the_child_that_tries_tensorrt_for_rtx_answers() -> None:
    asked: list[str] = []
    doctor._rtx(lambda code: (bool(asked.append(code)), ""), deep=True)
    for code in asked:  # none where it is not installed
        worked, said = doctor.run_python(code)
        assert worked, said
        assert said.startswith(("TensorRT for RTX", "not usable: "))
