"""What is read about a machine, from file trees made for the test; and that other work is seen."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vitrim.exporter.runtime.machine import environment as machine


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_desktop_is_read(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\ncpu MHz\t\t: 2900.5\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
            "sys/class/thermal/thermal_zone0/temp": "-256000\n",
            "sys/class/thermal/thermal_zone1/temp": "61500\n",
            "sys/class/thermal/thermal_zone2/temp": "40000\n",
            "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
            "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count": "4\n",
        },
    )
    found = machine.environment(1, root)
    assert (found["cpu"], found["governor"], found["frequency_mhz"]) == ("Some CPU @ 3 GHz", "powersave", 2900.5)
    assert (found["temperature_c"], found["throttle_events"], found["threads"]) == (61.5, 7, 1)
    assert found["other_cores"] is None  # no proc/stat: unknown, not zero
    tree(root, {"sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1400000\n"})
    assert machine.frequency(root) == 1400.0


def test_an_empty_machine_says_none(tmp_path: Path) -> None:
    assert machine.frequency(tmp_path) is None
    assert machine.temperature(tmp_path) is None
    assert machine.throttle_events(tmp_path) is None
    assert machine.jetson_state(tmp_path) is None
    assert machine.cpu_name(tmp_path)


def test_a_jetson_is_read_and_says_whether_its_clocks_are_locked(tmp_path: Path) -> None:
    gpu = "sys/class/devfreq/17000000.gpu"
    root = tree(
        tmp_path,
        {
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1\n",
            "proc/cpuinfo": "processor: 0\n",
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano\x00",
            f"{gpu}/min_freq": "306000000",
            f"{gpu}/max_freq": "918000000",
            f"{gpu}/cur_freq": "612000000",
        },
    )
    found = machine.jetson_state(root)
    assert found is not None
    assert (found["l4t"], found["jetpack"], found["gpu_clock_mhz"]) == ("36.4", "6.1 and 6.2", 612.0)
    assert found["clocks"] == "floating"
    assert machine.cpu_name(root) == "NVIDIA Jetson Orin Nano"
    tree(root, {f"{gpu}/min_freq": "918000000"})
    assert (machine.jetson_state(root) or {})["clocks"] == "locked"


def fake_tool(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_nvidia_smi_is_asked_and_may_be_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_tool(tmp_path, monkeypatch, "echo 'NVIDIA H200, 570.1, 35, 80.5, 700.0, 1980, 1980, 0x0, 0'; echo other")
    found = machine.nvidia_smi()
    assert found is not None
    assert (found["name"], found["sm_clock_mhz"], found["throttle_reasons"]) == ("NVIDIA H200", "1980", "0x0")
    fake_tool(tmp_path, monkeypatch, "echo 'No devices were found'")
    assert machine.nvidia_smi() is None
    fake_tool(tmp_path, monkeypatch, "echo 'a, b'; exit 9")
    assert machine.query_gpu(["name", "driver_version"]) is None


def test_stat_tells_other_work_from_stolen_time(tmp_path: Path) -> None:
    stat = tree(tmp_path, {"proc/stat": "cpu  100 0 50 900 0 0 0 10 0 0\n"}) / "proc/stat"
    with machine.Watch(tmp_path) as watch:
        time.sleep(0.05)
        stat.write_text("cpu  200 0 50 900 0 0 0 110 0 0\n")
    assert watch.other_cores is not None
    assert watch.stolen_cores is not None
    assert watch.other_cores > 1  # a hundred ticks within far less than their second
    assert watch.stolen_cores > 1
    stat.write_text("cpu  nonsense\n")
    with machine.Watch(tmp_path) as watch:
        pass
    assert watch.other_cores is None


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other work is read from /proc")
def test_own_work_is_not_other_work() -> None:
    def watched() -> float:
        with machine.Watch() as watch:
            end = time.process_time() + 0.3
            while time.process_time() < end:
                pass
        assert watch.other_cores is not None
        return watch.other_cores

    code = "import time\nend = time.time() + 20\nwhile time.time() < end: pass"
    alone = min(watched() for _ in range(2))
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        time.sleep(0.2)
        crowded = max(watched() for _ in range(2))
    finally:
        child.kill()
        child.wait()
    assert alone < (os.cpu_count() or 1)
    assert crowded > 0.2


def test_when_to_warn() -> None:
    quiet = {"cores": 4, "load_average": [9.0, 0, 0], "other_cores": 0.3, "stolen_cores": 0.0}
    assert machine.busy(quiet) is None  # the load is vitrim's own
    assert "other programs used 1.5 of 4 cores" in str(machine.busy(quiet | {"other_cores": 1.5}))
    assert "its host took 2.0 away" in str(machine.busy(quiet | {"stolen_cores": 2.0}))
    unknown = quiet | {"other_cores": None, "stolen_cores": None}
    assert "busy (load average 9.0 on 4 cores)" in str(machine.busy(unknown))
    assert machine.busy(unknown | {"load_average": [0.1, 0, 0]}) is None


def test_locking_clocks_is_advised_and_never_done() -> None:
    board = {"power_mode": "15W", "clocks": "floating"}
    assert machine.clocks({"jetson": board}) == ("floating", ["sudo nvpmodel -m 0", "sudo jetson_clocks"])
    assert machine.clocks({"jetson": {**board, "fastest_mode": 2}})[1][0] == "sudo nvpmodel -m 2"
    assert machine.clocks({"jetson": {"power_mode": "NV Power Mode: MAXN", "clocks": "locked"}}) == ("locked", [])
    state, commands = machine.clocks({"governor": "schedutil", "gpu_state": {"sm_clock_max_mhz": "1980"}})
    assert state == "floating"
    assert commands[0] == "sudo cpupower frequency-set -g performance"
    assert commands[1].startswith("sudo nvidia-smi -lgc 1980,1980 ")
    assert machine.clocks({"governor": "performance"}) == ("unknown", [])
    assert machine.clocks({"governor": None, "gpu_state": {"sm_clock_max_mhz": "[N/A]"}}) == ("unknown", [])


def test_what_slows_a_jetson_down_is_read(tmp_path: Path) -> None:
    cooling, hwmon = "sys/class/thermal/cooling_device", "sys/class/hwmon/hwmon3"
    root = tree(
        tmp_path,
        {
            "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1\n",
            f"{cooling}0/type": "gpu-throttle-alert",
            f"{cooling}0/cur_state": "1",
            f"{cooling}1/type": "cpu-throttle-alert",
            f"{cooling}1/cur_state": "0",
            f"{cooling}2/type": "pwm-fan",
            f"{cooling}2/cur_state": "3",
            "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n",
            f"{hwmon}/oc1_event_cnt": "2",
            f"{hwmon}/oc3_event_cnt": "37",
        },
    )
    state = machine.jetson_state(root)
    assert state is not None
    assert (state["l4t"], state["jetpack"]) == ("35.4", "5.1")
    assert (state["throttling"], state["overcurrent_events"]) == (["gpu-throttle-alert"], 39)
    assert state["fastest_mode"] == 2
    assert machine.environment(1, root)["clocks"] == "unknown"  # no clock to read: not called locked


def test_a_field_that_was_renamed_is_asked_by_its_new_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\ncase \"$*\" in *throttle_reasons*) exit 2;; esac\necho 'A,1,2,3,4,5,6,0x4,8'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = machine.nvidia_smi()
    assert found is not None
    assert found["throttle_reasons"] == "0x4"


def test_environment_names_the_machine() -> None:
    found = machine.environment(threads=2)
    assert found["threads"] == 2
    assert found["cpu"]
    assert found["cores"] >= 1
    assert "tensorrt" in found


def test_no_process_is_started_to_name_the_platform() -> None:
    code = (
        "import platform, subprocess\n"
        "real, subprocess.Popen = subprocess.Popen, None\n"
        "from vitrim.exporter.runtime.machine.environment import environment\n"
        "named = environment()['platform']\n"
        "subprocess.Popen = real\n"
        "print(named == platform.platform() or not named.startswith('Linux'))"
    )
    if machine.shutil.which("nvidia-smi") or machine.shutil.which("nvpmodel"):
        pytest.skip("its own tools are processes of their own")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "True", "")
