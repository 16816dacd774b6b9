"""run_on_device.py in processes of its own, Python 3.8's too, with a stand-in for TensorRT and one for libcudart.

What the stand-ins cannot show is that the real ones take these calls: unverified on a GPU. That the real libcudart has
them by these names is a test of its own, where there is one.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from profile_folders import doubling_folder, standin_folder
from python38 import python_38
from small_bundles import doubling
from standin_bundles import STANDIN, compiled_cudart, golden, make, standin_environment

from vitrim.exporter.core import layout
from vitrim.exporter.core.errors import EnvironmentLackError, UnsupportedError
from vitrim.exporter.core.latency import LatencyTable
from vitrim.exporter.runtime import rungs
from vitrim.exporter.runtime.bench import stats
from vitrim.exporter.runtime.bench.report import Bench
from vitrim.exporter.runtime.bundles.manifest import write_manifest
from vitrim.exporter.runtime.bundles.verify import verify_bundle
from vitrim.exporter.runtime.parity import Parity
from vitrim.exporter.runtime.standalone import pack as standalone
from vitrim.exporter.runtime.tensorrt import cuda
from vitrim.exporter.runtime.tensorrt import versions as trt

OLD = Path(__file__).parents[3] / "data" / "0.1.0"


@pytest.fixture(params=["3.8", "this"])
def python(request: pytest.FixtureRequest) -> str:
    return python_38() if request.param == "3.8" else sys.executable


@pytest.fixture(scope="session")
def cudart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for libcudart, compiled."""
    return compiled_cudart(tmp_path_factory.mktemp("cuda"))


class Device:
    """A machine with the stand-ins."""

    def __init__(self, python: str, cudart: Path, scratch: Path, version: str) -> None:
        self.python, self.log = python, scratch / "log.jsonl"
        stripped = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PATH")}
        named = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(STANDIN)}
        self.environment = stripped | named | standin_environment(cudart, scratch, version)

    def __call__(self, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.python, "-W", "error", str(folder / layout.STANDALONE), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, env=self.environment, cwd=folder.parent, timeout=120, check=False
        )

    def builds(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.mark.slow
def test_build_check_bench_info(python: str, cudart: Path, tmp_path: Path) -> None:
    folder, device = make(tmp_path / "b"), Device(python, cudart, tmp_path, "8.5.2.2")
    lacks = device(folder, "check")
    assert (lacks.returncode, lacks.stderr.count("\n")) == (3, 1)
    assert "nothing was checked" in lacks.stderr
    assert "has no model.engine: build it first" in device(folder, "bench").stderr

    built = device(folder, "build", "--workspace", "64")
    assert (built.returncode, built.stderr) == (0, "")
    assert device.builds()[0]["pools"] == {"WORKSPACE": 64 << 20}
    assert "tensorrt-8.5.2.2 = golden: ok, 4 images" in built.stdout
    assert "Engine: fp32, weakly typed without precision flags: float32 throughout; all 1 matrix layers" in built.stdout
    manifest = verify_bundle(folder)  # by the package: the file is what the device published
    assert (manifest.engine, manifest.versions) == ("built", {"vitrim": "0"})
    assert layout.STANDALONE in manifest.files

    checked = device(folder, "check", "--json")
    rung = json.loads(checked.stdout)["rungs"][-1]
    assert (checked.returncode, rung["passed"], rung["top1"], rung["unproven"]) == (0, True, 1.0, 0)

    out = tmp_path / "bench.json"
    timed = device(folder, "bench", "--runs", "12", "--warmup", "0", "--allow-slower", "--cuda-graph", "-o", str(out))
    assert (timed.returncode, timed.stderr) == (0, "")
    for line in ("  dense: ", "  pruned, cuda_graph: ", "  pruned, copy_in: ", "Speed: ", "Overhead over free slicing"):
        assert f"\n{line}" in timed.stdout
    result = json.loads(out.read_text())
    assert set(result["distributions"]) == {"dense", "pruned", "floor"}
    assert set(result["modes"]) == {"plain", "cuda_graph", "with_copies", "copy_in", "copy_out", "gpu_only"}
    assert result["modes"]["gpu_only"]["median"] >= 2.0  # the graph was launched, and its 2 ms were waited for
    where = result["environment"]
    assert (where["runtime"], where["cuda_graph"], where["tensorrt"]) == ("tensorrt-8.5.2.2", True, "8.5.2.2")
    assert result["bundle"]["graph_sha256"] == manifest.files["model.onnx"].sha256
    assert [built["timings"] for built in device.builds()] == ["", "", ""]  # one a graph: pruned, dense, floor
    again = tmp_path / "b2"
    shutil.copytree(folder, again)
    assert device(again, "build").returncode == 0
    assert device.builds()[3]["timings"] == "timings"

    info = json.loads(device(folder, "info", "--json").stdout)
    assert (info["engine"], info["engines"]) == ("built", "can be built here")
    inside = device(folder, "check", "-o", str(folder / "check.json"))
    assert "lies in the bundle" in inside.stderr
    verify_bundle(folder)


@pytest.mark.slow
def test_an_engine_of_tensorrt_for_rtx_is_built_anywhere_and_run_where_there_is_a_gpu(
    python: str, cudart: Path, tmp_path: Path
) -> None:
    folder = make(tmp_path / "b", "fp16", target="trt-rtx")
    device = Device(python, cudart, tmp_path, "1.7.1.116")
    device.environment["STANDIN_NO_GPU"] = "1"
    refused = device(folder, "build", "--dla-core", "0")
    assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)
    assert "TensorRT for RTX knows no DLA cores" in refused.stderr
    built = device(folder, "build", "--capability", "8.6", "--capability", "8.9")
    assert (built.returncode, built.stderr) == (0, "")
    (asked,) = device.builds()
    assert (asked["network"], asked["flags"], asked["capabilities"]) == (["STRONGLY_TYPED"], [], ["SM86", "SM89"])
    assert (asked["timings"], asked["pools"]) == (None, {"WORKSPACE": 1024 << 20})
    told = "TensorRT for RTX 1.7.1.116 builds engines here, but running one needs a GPU, and there is none"
    assert f"Note: the engine was not checked: {told}\n" in built.stdout
    assert "by TensorRT for RTX 1.7.1.116 for GPUs of compute capability 8.6, 8.9\n" in built.stdout
    parity = json.loads((folder / "parity.json").read_text())
    assert (parity["engine_not_checked"], [rung["name"] for rung in parity["rungs"]]) == (told, ["onnx"])
    assert json.loads(device(folder, "info", "--json").stdout)["engines"] == "can be built here"
    for command in ("check", "bench"):
        done = device(folder, command)
        assert (done.returncode, done.stderr.count("\n")) == (3, 1)
        assert told in done.stderr

    del device.environment["STANDIN_NO_GPU"]
    checked = device(folder, "check")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "tensorrt-rtx-1.7.1.116 = golden: ok, 4 images, top-1 100.0%" in checked.stdout
    out = tmp_path / "bench.json"
    timed = device(folder, "bench", "--runs", "6", "--warmup", "0", "--allow-slower", "-o", str(out))
    assert (timed.returncode, timed.stderr) == (0, "")
    where = json.loads(out.read_text())["environment"]
    assert (where["runtime"], where["gpu"]) == ("tensorrt-rtx-1.7.1.116", "RTX 4090")
    assert [each["capabilities"] for each in device.builds()[1:]] == [["SM86", "SM89"]] * 2  # as the bundle's own
    other = device(folder, "build", "--capability", "8.6")
    assert other.returncode == 0
    assert "not checked: it is for GPUs of compute capability 8.6, and here it is 8.9\n" in other.stdout
    verify_bundle(folder)


def test_whoever_builds_from_within_the_folder_is_told_that_it_was_replaced(cudart: Path, tmp_path: Path) -> None:
    folder, device = make(tmp_path / "b"), Device(sys.executable, cudart, tmp_path, "10.3.0")
    assert device(folder, "build").stderr == ""
    command = [sys.executable, layout.STANDALONE, "build", "."]
    done = subprocess.run(
        command,
        cwd=folder,
        env=device.environment | {"PWD": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, 'this folder was replaced by the one with the engine: cd "$PWD"\n')
    verify_bundle(folder)


def test_damage_is_found_before_anything_is_used(cudart: Path, tmp_path: Path) -> None:
    folder, device = make(tmp_path / "b"), Device(sys.executable, cudart, tmp_path, "10.3.0")
    with open(folder / "model.onnx", "a") as stream:
        stream.write(" ")
    for command in ("info", "check", "build", "bench"):
        done = device(folder, command)
        assert (done.returncode, done.stderr.count("\n")) == (3, 1)
        assert "model.onnx is not the file that was published" in done.stderr
    assert not device.log.exists()
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("jetpack-5", "jetpack-6"))
    assert "manifest.json is not the file that was published" in device(folder, "build").stderr


def test_a_wrong_engine_is_not_published(cudart: Path, tmp_path: Path) -> None:
    device = Device(sys.executable, cudart, tmp_path, "10.3.0")
    wrong = make(tmp_path / "wrong", scale=3.01)
    done = device(wrong, "build")
    assert done.returncode == 1
    assert "parity failed at 'tensorrt-10.3.0 = golden', first at logits" in done.stderr
    swapped = device(make(tmp_path / "swapped", swap=True), "build")
    assert swapped.returncode == 1
    assert "first at kept_1: 4 images keep other tokens, with a score gap of 0.5" in swapped.stderr
    assert "model.engine" not in verify_bundle(wrong).files


def test_another_precision_is_judged_by_cosine_and_answers(python: str, cudart: Path, tmp_path: Path) -> None:
    device = Device(python, cudart, tmp_path, "10.3.0")
    folder = make(tmp_path / "b", "fp16", scale=3.01)
    built = device(folder, "build")
    assert (built.returncode, built.stderr) == (0, "")
    assert "tensorrt-10.3.0 = golden: ok, 4 images, top-1 100.0%, error cosine 1.00000\n" in built.stdout
    assert json.loads((folder / "parity.json").read_text())["close"] == {"cosine": 0.9995, "agreement": 0.99}
    assert device(folder, "check").returncode == 0
    strict = device(folder, "check", "--atol", "1e-4")
    assert (strict.returncode, "largest error" in strict.stderr) == (1, True)
    swapped = device(make(tmp_path / "swapped", "fp16", swap=True), "build")
    assert (swapped.returncode, "cosine 1.00000, no decisions alike" in swapped.stdout) == (0, True)
    wrong = device(make(tmp_path / "wrong", "fp16", swap=True, scale=-3.0), "build")
    assert (wrong.returncode, "no image decides alike, and the mean cosine is -1" in wrong.stderr) == (1, True)


@pytest.mark.parametrize(
    ("change", "said"), [("refused", "refuses .* node 7: no Gelu"), ("fails", "cannot build .*: no")]
)
def test_refusals_are_one_line(cudart: Path, tmp_path: Path, change: str, said: str) -> None:
    done = Device(sys.executable, cudart, tmp_path, "8.6.1")(make(tmp_path / "b", **{change: "no Gelu"}), "build")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert re.search(said, done.stderr)


@pytest.mark.parametrize("version", ["8.5.2.2", "8.6.2.3", "10.3.0", "10.12.0", "11.4.1"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_networks_are_typed_as_the_package_types_them(
    cudart: Path, tmp_path: Path, version: str, precision: Any
) -> None:
    device = Device(sys.executable, cudart, tmp_path, version)
    assert device(make(tmp_path / "b", precision), "build").returncode == 0
    typing, seen = trt.typing_for(trt.version_of(version), precision), device.builds()[0]
    assert ("STRONGLY_TYPED" in seen["network"]) is typing.strong
    assert ("EXPLICIT_BATCH" in seen["network"]) is (version[0] == "8")
    assert seen["flags"] == (["FP16", "OBEY_PRECISION_CONSTRAINTS"] if typing.fp16_flag else [])


def test_an_engine_in_another_precision_is_refused_unless_asked_for(cudart: Path, tmp_path: Path) -> None:
    device, folder = Device(sys.executable, cudart, tmp_path, "10.3.0"), make(tmp_path / "b", "fp16", kind="Float")
    done = device(folder, "build")
    assert (done.returncode, "is not fp16: 1 of 1 matrix layers" in done.stderr) == (3, True)
    assert "model.engine" not in verify_bundle(folder).files
    assert device(folder, "build", "--any-precision").returncode == 0


def test_its_numbers_are_those_of_the_package(python: str, tmp_path: Path) -> None:
    standalone.write(tmp_path)
    code = """
import json, sys
import numpy as np
import run_on_device
from vitrim_on_device.runtime import rungs
from vitrim_on_device.runtime.bench import stats
from vitrim_on_device.runtime.bench.report import Bench
from vitrim_on_device.runtime.parity import Parity
data = dict(np.load("data.npz"))
golden = {key[2:]: value for key, value in data.items() if key.startswith("g_")}
other = {key[2:]: value for key, value in data.items() if key.startswith("o_")}
print(json.dumps([
    stats.summarize(data["a"]).to_json(), stats.paired_ratio(data["a"], data["b"]).to_json(),
    rungs.compare("x", golden, other, atol=1e-2, tie=1e-5).to_json(),
    rungs.compare("x", golden, other, atol=1e-2, tie=1e-8).to_json(),
    Bench.read("bench-engine.json", "benchmark").to_json(),
    Parity.read("parity-engine.json", "parity report").to_json(),
]))
"""
    for name in ("bench-engine.json", "parity-engine.json"):
        shutil.copy(OLD / name, tmp_path)
    rng = np.random.default_rng(3)
    taken = {"a": rng.lognormal(1, 0.3, 257), "b": rng.lognormal(0, 0.3, 257)}
    reference = golden()
    other = {"logits": reference["logits"] + 1e-3, "kept_1": reference["kept_1"].copy()}
    other["kept_1"][0] = [2, 3] if set(reference["kept_1"][0]) != {2, 3} else [0, 1]
    packed = {f"g_{key}": value for key, value in reference.items()} | {f"o_{k}": v for k, v in other.items()}
    np.savez(tmp_path / "data.npz", **taken, **packed)  # type: ignore[arg-type]
    stripped = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([python, "-c", code], cwd=tmp_path, env=stripped, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    here = [
        stats.summarize(taken["a"]).to_json(),
        stats.paired_ratio(taken["a"], taken["b"]).to_json(),
        rungs.compare("x", reference, other, atol=1e-2, tie=1e-5).to_json(),
        rungs.compare("x", reference, other, atol=1e-2, tie=1e-8).to_json(),
        Bench.read(OLD / "bench-engine.json", "benchmark").to_json(),
        Parity.read(OLD / "parity-engine.json", "parity report").to_json(),
    ]
    assert [here[2]["passed"], here[2]["unproven"], here[3]["passed"]] == [True, 1, False]
    there = json.loads(done.stdout)
    assert json.dumps(there[2:]) == json.dumps(json.loads(json.dumps(here[2:])))
    for ours, theirs in zip(here[:2], there[:2], strict=True):  # the sums of two versions of numpy differ in a last bit
        assert set(ours) == set(theirs)
        for key, value in ours.items():
            assert theirs[key] == pytest.approx(value, rel=1e-12)


def test_copies_graphs_and_memory(cudart: Path) -> None:
    library = cuda.load(lambda: [str(cudart)])
    held = library.standin_alive()
    one = cuda.Cuda(library)
    array, back = np.arange(6, dtype=np.float32), np.empty(6, np.float32)
    address = one.malloc(array.nbytes)
    one.copy_in(address, array)
    one.copy_out(back, address)
    one.synchronize()
    np.testing.assert_array_equal(back, array)
    counted: list[int] = []
    work = ctypes.CFUNCTYPE(None)(lambda: counted.append(1))
    launch = one.capture(lambda: library.standin_enqueue(work))
    assert counted == []  # recorded, not run
    launch()
    launch()
    assert counted == [1, 1]
    assert 0 <= one.device_milliseconds(launch) < 1000
    with pytest.raises(UnsupportedError, match="cudaStreamEndCapture failed with CUDA error 901 .operation failed"):
        one.capture(lambda: None)
    one.synchronize()  # the stream is not left in capture
    assert library.standin_alive() == held + 3  # memory, stream, graph
    one.close()
    assert library.standin_alive() == held


def test_a_missing_libcudart_is_said(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLackError, match="libcudart.* is not found: set LD_LIBRARY_PATH"):
        cuda.load(lambda: [str(tmp_path / "none.so")])


def test_the_real_libcudart_has_these_names() -> None:
    for name in cuda.candidates():
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        assert [call for call in cuda.SIGNATURES if not hasattr(library, call)] == []
        return
    pytest.skip("no libcudart here")


HIJACK = ("numpy", "json", "os", "functools", "importlib", "itertools", "pathlib", "argparse", "tensorrt", "typing")


@pytest.mark.parametrize("way", ["by its path", "by name", "by a link", "without site", "on the search path"])
def test_no_module_that_lies_in_the_folder_is_run(python: str, tmp_path: Path, way: str) -> None:
    """Nothing of a bundle runs before its hashes are looked at, but this one file."""
    folder, ran = make(tmp_path / "b"), tmp_path / "ran"
    for name in HIJACK:
        (folder / f"{name}.py").write_text(f"open({str(ran)!r}, 'a').write('{name} ')\n")
    (folder / "ctypes").mkdir()
    (folder / "ctypes" / "__init__.py").write_text(f"open({str(ran)!r}, 'a').write('ctypes ')\n")
    (tmp_path / "link.py").symlink_to(folder / layout.STANDALONE)
    command, where = {
        "by its path": ([str(folder / layout.STANDALONE)], tmp_path),
        "by name": ([layout.STANDALONE], folder),
        "by a link": (["link.py"], tmp_path),
        "without site": (["-S", layout.STANDALONE], folder),  # then not even `os` is loaded yet, and numpy is not found
        "on the search path": ([layout.STANDALONE], tmp_path / "b"),
    }[way]
    stripped = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment = stripped | {"PYTHONDONTWRITEBYTECODE": "1"}
    if way == "on the search path":
        environment |= {"PYTHONPATH": os.pathsep.join(["", str(folder), "../b", str(STANDIN)])}
        for name in HIJACK:  # Python itself takes these from a search path before it runs any script
            if name not in ("numpy", "tensorrt", "argparse"):
                (folder / f"{name}.py").unlink()
    done = subprocess.run(
        [python, *command, "info"], cwd=where, env=environment, capture_output=True, text=True, check=False
    )
    assert not ran.exists(), ran.read_text()
    if way == "without site":
        assert "No module named 'numpy'" in done.stderr
    else:
        first = min([path.relative_to(folder).as_posix() for path in folder.rglob("*.py")], key=str)
        assert (done.returncode, done.stderr) == (
            3,
            f"run_on_device.py: {folder}: {first} is not in the manifest; remove it or publish the bundle anew\n",
        )


def test_only_its_own_kind_of_file_is_replaced(cudart: Path, tmp_path: Path) -> None:
    folder, device = make(tmp_path / "b"), Device(sys.executable, cudart, tmp_path, "10.3.0")
    other, photo, kept = make(tmp_path / "other"), tmp_path / "photo.jpg", tmp_path / "info.json"
    photo.write_bytes(b"\xff\xd8 a photo")
    for out, said in (
        (photo, "photo.jpg exists and is no machine report; name another file, or replace it with --force"),
        (other / "info.json", f"lies in the bundle {other}"),
        (tmp_path, "is a folder; name the machine report file to write, such as machine.json"),
    ):
        done = device(folder, "info", "-o", str(out))
        assert (done.returncode, done.stderr.count("\n"), said in done.stderr) == (3, 1, True), done.stderr
    assert photo.read_bytes() == b"\xff\xd8 a photo"
    for _ in range(2):
        assert device(folder, "info", "-o", str(kept)).returncode == 0
    assert device(folder, "info", "-o", str(photo), "--force").returncode == 0
    assert set(json.loads(photo.read_text())) == set(json.loads(kept.read_text()))


@pytest.mark.slow
def test_a_bundle_for_openvino_takes_numpy_and_openvino_alone(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    folder, poison = doubling(tmp_path / "b"), tmp_path / "poison"
    standalone.write(folder)
    write_manifest(folder, {"vitrim": "0"}, ["vitrim"], target="openvino")
    poison.mkdir()
    for name in ("torch", "onnx", "onnxruntime", "tensorrt", "vitrim"):
        (poison / f"{name}.py").write_text(f"raise RuntimeError('{name} is imported')\n")

    def device(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(folder / layout.STANDALONE), *words]
        own = {"PYTHONPATH": str(poison), "VITRIM_CACHE": str(tmp_path / "cache")}
        return subprocess.run(
            command, capture_output=True, text=True, env=os.environ | own, cwd=tmp_path, timeout=120, check=False
        )

    checked = device("check", "--threads", "1")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.startswith("openvino-cpu = golden: ok, 4 images, top-1 100.0%")
    timed = device("bench", "--threads", "1", "--runs", "6", "--warmup", "0", "--allow-slower", "--json")
    assert (timed.returncode, timed.stderr) == (0, "")
    where = json.loads(timed.stdout)["environment"]
    assert (where["runtime"], where["device"]["threads"], where["cpu_only"]) == ("openvino-cpu", 1, None)
    refused = device("build")
    assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)
    assert "needs no build: none belongs to openvino" in refused.stderr


@pytest.mark.slow
def test_a_latency_table_is_made_of_engines(python: str, cudart: Path, tmp_path: Path) -> None:
    seconds = {
        "attention.1": 0.001,
        "attention.9": 0.004,
        "mlp.1": 0.002,
        "mlp.9": 0.006,
        "dense": 0.012,
        "frugal": 0.01,
    }
    folder, device = standin_folder(tmp_path / "p", seconds), Device(python, cudart, tmp_path, "8.5.2.2")
    out = tmp_path / "table.json"
    done = device(folder, "table", "--processes", "1", "--rounds", "3", "-o", str(out))
    assert (done.returncode, done.stderr.count("\n")) == (0, 7)  # six engines, one process
    assert "small: decomposed\n  1 tokens: attention 1." in done.stdout
    assert len(device.builds()) == 6
    table = LatencyTable.read(out, "latency table")
    assert (table.packed, table.clock, table.of.runtime) == (True, "wall", "TensorRT 8.5.2.2")
    assert table.of.device.endswith(", RTX 4090")  # what the stand-in driver says
    took = (*table.forms["decomposed"].attention, *table.mlp, table.forms["decomposed"].dense)
    # A busy machine sleeps longer than it is asked to, never shorter.
    waits = [1000 * one for one in seconds.values()]
    assert all(wait <= one < wait + 50 for wait, one in zip(waits[:5], took, strict=True))
    assert set(table.forms["decomposed"].stages) == {"frugal"}

    inside = device(folder, "table", "-o", str(folder / "table.json"))
    assert (inside.returncode, inside.stderr.count("\n")) == (3, 1)
    (folder / "json.py").write_text("raise SystemExit('a stranger was run')")
    refused = device(folder, "table")
    assert (refused.returncode, refused.stderr) == (
        3,
        f"run_on_device.py: {folder}: json.py is not in profile.json; remove it\n",
    )


@pytest.mark.slow
def test_a_latency_table_is_made_by_onnxruntime(cudart: Path, tmp_path: Path) -> None:
    folder, device = doubling_folder(tmp_path / "p"), Device(sys.executable, cudart, tmp_path, "")
    done = device(folder, "table", "--processes", "1", "--rounds", "2", "--json")
    assert (done.returncode, done.stderr) == (0, "run_on_device.py: 1 of 1\n")
    table = LatencyTable.from_json(json.loads(done.stdout), "printed")
    assert table.of.runtime.startswith("onnxruntime 1.")
    assert 0 < table.mlp[0] < 1
