"""What a machine tells of itself. References: recorded text of tegrastats and nvpmodel, sysfs trees as on boards, and a
stand-in for NVML that answers as the library does (through pointers, with return codes).
"""

from __future__ import annotations

import ctypes
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from grip_edge.runtime.energy import EnergyMeter, PowerIntegral, find_meter, integral
from grip_edge.runtime.machine import machine, tegra_release
from grip_edge.runtime.machine_state import machine_state, power_mode
from grip_edge.runtime.memory_probe import DeviceMemory, peak_resident_bytes
from grip_edge.runtime.nvml import Gpu
from grip_edge.runtime.power_rails import ina3221_watts, rapl_joules, tegrastats_watts

ORIN_LINE = (
    "11-21-2025 04:12:33 RAM 5423/62841MB (lfb 12x4MB) SWAP 0/31420MB (cached 0MB) CPU [12%@1344,0%@1344,off,off] "
    "EMC_FREQ 0%@3199 GR3D_FREQ 41%@[1300,1300] NVDEC off cpu@47.2C soc2@43.9C tj@47.2C gpu@44.1C "
    "VDD_GPU_SOC 5176mW/5176mW VDD_CPU_CV 796mW/812mW VIN_SYS_5V0 4536mW/4536mW VDDQ_VDD2_1V8AO 603mW/603mW"
)
NANO_LINE = (
    "11-21-2025 04:12:33 RAM 2741/7620MB (lfb 4x4MB) SWAP 3/3810MB CPU [5%@1510,2%@1510] GR3D_FREQ 0% "
    "cpu@49.5C tj@50.1C VDD_IN 4960mW/4955mW VDD_CPU_GPU_CV 521mW/525mW VDD_SOC 1480mW/1480mW"
)
OLD_LINE = (
    "RAM 1903/3964MB (lfb 2x1MB) CPU [3%@1479] GPU@30C PMIC@100C POM_5V_IN 2532/2540 POM_5V_GPU 40/40 "
    "POM_5V_CPU 360/380"
)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def orin(root: Path) -> Path:
    sensor, zone = "sys/class/hwmon/hwmon3", "sys/class/thermal/thermal_zone0"
    return write(
        root,
        {
            "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\n",
            "proc/meminfo": "MemTotal: 64349264 kB\nMemAvailable: 50000000 kB\nSwapTotal: 1000 kB\nSwapFree: 400 kB\n",
            f"{sensor}/name": "ina3221\n",
            f"{sensor}/in1_label": "VDD_GPU_SOC\n",
            f"{sensor}/in1_input": "19832\n",
            f"{sensor}/curr1_input": "200\n",
            f"{sensor}/in2_label": "VIN_SYS_5V0\n",
            f"{sensor}/in2_input": "5000\n",
            f"{sensor}/curr2_input": "900\n",
            "sys/class/hwmon/hwmon0/name": "nvme\n",
            "sys/class/devfreq/17000000.gpu/cur_freq": "1300500000\n",
            "sys/class/devfreq/15340000.vic/cur_freq": "729600000\n",
            "sys/kernel/debug/bpmp/debug/clk/emc/rate": "3199000000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2201600\n",
            f"{zone}/type": "gpu-thermal\n",
            f"{zone}/temp": "44093\n",
        },
    )


@pytest.mark.parametrize(
    ("line", "watts"),
    [
        (ORIN_LINE, {"VDD_GPU_SOC": 5.176, "VDD_CPU_CV": 0.796, "VIN_SYS_5V0": 4.536, "VDDQ_VDD2_1V8AO": 0.603}),
        (NANO_LINE, {"VDD_IN": 4.96, "VDD_CPU_GPU_CV": 0.521, "VDD_SOC": 1.48}),
        (OLD_LINE, {"POM_5V_IN": 2.532, "POM_5V_GPU": 0.04, "POM_5V_CPU": 0.36}),
        ("RAM 1/2MB", {}),
    ],
)
def test_tegrastats(line: str, watts: dict[str, float]) -> None:
    assert tegrastats_watts(line + "\n") == pytest.approx(watts)


def test_rails_in_sysfs(tmp_path: Path) -> None:
    assert ina3221_watts(orin(tmp_path)) == pytest.approx({"VDD_GPU_SOC": 19.832 * 0.2, "VIN_SYS_5V0": 4.5})
    assert ina3221_watts(tmp_path / "elsewhere") == {}


def test_a_board(tmp_path: Path) -> None:
    found, state = machine(2, root=orin(tmp_path)), machine_state(tmp_path)
    assert found.board == "NVIDIA Jetson AGX Orin Developer Kit"
    assert found.cpu_model == "ARMv8 Processor rev 1 (v8l)"
    assert found.versions["linux-for-tegra"] == "36.4.3"
    assert found.memory_bytes == 64349264 * 1024
    assert state.cpu_governor == "schedutil"
    assert state.clocks_mhz == {"cpu0": 2201.6, "gpu": 1300.5, "memory": 3199.0}
    assert state.temperatures_celsius == {"gpu": 44.093}
    assert (state.available_bytes, state.swap_used_bytes) == (50000000 * 1024, 600 * 1024)


def test_what_is_not_told_is_unknown(tmp_path: Path) -> None:
    found, state = machine(None, root=tmp_path), machine_state(tmp_path)
    assert (found.board, found.memory_bytes, tegra_release(tmp_path)) == (None, None, None)
    assert (state.cpu_governor, state.available_bytes, state.swap_used_bytes) == (None, None, None)
    assert (state.clocks_mhz, state.temperatures_celsius) == ({}, {})


def test_power_mode() -> None:
    assert power_mode("NV Power Mode: MAXN\n0\n") == "MAXN"
    assert power_mode("NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_30W\n2\n") == "MODE_30W"
    assert power_mode("") is None


def test_powers_are_summed_over_time() -> None:
    readings = [(0.0, {"a": 2.0, "b": 1.0}), (1.0, {"a": 4.0, "b": 1.0}), (3.0, {"a": 4.0})]
    assert integral(readings) == {"a": 3.0 + 8.0, "b": 1.0}
    assert integral(readings[:1]) == {}


def test_a_meter_reads_while_work_is_done(tmp_path: Path) -> None:
    meter = find_meter(orin(tmp_path))
    assert meter is not None
    assert meter.source == "INA3221 in sysfs"
    with meter:
        time.sleep(0.12)
    assert meter.main_rail == "VIN_SYS_5V0"  # the board's, although it shows less than the other
    assert meter.joules["VIN_SYS_5V0"] / meter.seconds == pytest.approx(4.5, rel=0.05)


def test_power_is_read_again_and_again() -> None:
    values = iter(range(1000))
    power = PowerIntegral(lambda: {"x": float(next(values))}, interval_s=0.001)
    power.begin(time.perf_counter())
    time.sleep(0.1)
    power.end(time.perf_counter())
    assert next(values) > 3


def test_a_program_named_tegrastats_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "tegrastats"
    program.write_text(f"#!/bin/sh\nwhile true; do echo '{NANO_LINE}'; sleep 0.02; done\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    meter = find_meter(tmp_path)
    assert meter is not None
    assert meter.source == "tegrastats"
    with meter:
        time.sleep(0.5)
    assert meter.main_rail == "VDD_IN"
    assert meter.joules["VDD_IN"] / meter.seconds == pytest.approx(4.96, rel=0.05)


def test_counters_wrap(tmp_path: Path) -> None:
    zone = "sys/class/powercap/intel-rapl:0"
    files = {f"{zone}/name": "package-0", f"{zone}/energy_uj": "900000", f"{zone}/max_energy_range_uj": "1000000"}
    meter = find_meter(write(tmp_path, files))
    assert meter is not None
    assert rapl_joules(tmp_path)["package-0"] == pytest.approx((0.9, 1.0))
    with meter:
        (tmp_path / zone / "energy_uj").write_text("200000")
    assert meter.joules == pytest.approx({"package-0": 0.3})


class StandInNvml:
    """Values by function; ``failing`` functions return an error code."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.used = 3_000_000

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml"):
            raise AttributeError(name)
        return lambda *arguments: self._call(name, *arguments)

    def _call(self, name: str, *arguments: Any) -> int:
        if name in self.failing:
            return 3  # NVML_ERROR_NOT_SUPPORTED
        numbers = {
            "nvmlDeviceGetPowerUsage": 61_500,
            "nvmlDeviceGetTotalEnergyConsumption": 2**33,
            "nvmlDeviceGetTemperature": 44,
            "nvmlDeviceGetCurrentClocksThrottleReasons": 0x04 | 0x40 | 0x01,
        }
        if name in numbers:
            arguments[-1]._obj.value = numbers[name]
        elif name == "nvmlDeviceGetClockInfo":
            arguments[-1]._obj.value = {1: 1980, 2: 9501}[arguments[1]]
        elif name in ("nvmlDeviceGetName", "nvmlSystemGetDriverVersion"):
            arguments[-2].value = b"NVIDIA RTX" if name.endswith("Name") else b"580.65"
        elif name == "nvmlDeviceGetMemoryInfo":
            arguments[-1]._obj.used = self.used
        elif name == "nvmlDeviceGetComputeRunningProcesses_v3":
            arguments[1]._obj.value = 2
            for entry, (pid, used) in zip(arguments[2], ((11, 5_000), (12, 2**64 - 1)), strict=False):
                entry.pid, entry.used_bytes = pid, used
        return 0


def test_nvml() -> None:
    gpu = Gpu(StandInNvml())
    assert (gpu.name, gpu.driver) == ("NVIDIA RTX", "580.65")
    assert gpu.clocks_mhz == {"gpu": 1980.0, "memory": 9501.0}
    assert (gpu.watts, gpu.joules, gpu.temperature_celsius) == (61.5, 2**33 / 1000, 44.0)
    assert gpu.throttling == ("power cap", "hardware thermal slowdown")
    assert gpu.used_bytes == 3_000_000
    assert (gpu.process_bytes(11), gpu.process_bytes(12), gpu.process_bytes(13)) == (5_000, None, None)


def test_nvml_that_tells_little() -> None:
    gpu = Gpu(StandInNvml("nvmlDeviceGetPowerUsage", "nvmlDeviceGetClockInfo", "nvmlDeviceGetMemoryInfo"))
    assert (gpu.watts, gpu.clocks_mhz, gpu.used_bytes) == (None, {}, None)
    with pytest.raises(OSError, match="no GPU"):
        Gpu(StandInNvml("nvmlInit_v2"))


def test_the_gpu_as_a_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    counter = find_meter(tmp_path, Gpu(StandInNvml()))
    assert counter is not None
    assert counter.source == "NVML energy counter"
    power = find_meter(tmp_path, Gpu(StandInNvml("nvmlDeviceGetTotalEnergyConsumption")))
    assert power is not None
    assert power.source == "NVML power"
    neither = StandInNvml("nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetPowerUsage")
    assert find_meter(tmp_path, Gpu(neither)) is None


def test_device_memory_by_the_best_metric_there_is() -> None:
    own = DeviceMemory(Gpu(StandInNvml()), pid=11)
    own.sample()
    assert (own.peak_bytes, own.metric) == (5_000, "nvml_process_allocation")
    library = StandInNvml()
    grown = DeviceMemory(Gpu(library), pid=99)
    for used in (3_400_000, 3_100_000):
        library.used = used
        grown.sample()
    assert (grown.peak_bytes, grown.metric) == (400_000, "nvml_used_memory_delta")
    assert (DeviceMemory(None, 1).peak_bytes, DeviceMemory(None, 1).metric) == (None, "unavailable")


def test_peak_resident_memory(tmp_path: Path) -> None:
    status = write(tmp_path, {"status": "VmPeak:\t  900 kB\nVmHWM:\t  123 kB\n"}) / "status"
    assert peak_resident_bytes(status) == (123 * 1024, "VmHWM")
    assert peak_resident_bytes(tmp_path / "none")[1] == "ru_maxrss"


def test_structures_are_as_large_as_in_nvml_h() -> None:
    from grip_edge.runtime.nvml import _MemoryInfo, _Process

    assert (ctypes.sizeof(_MemoryInfo), ctypes.sizeof(_Process)) == (24, 24)


def test_a_meter_without_readings_has_no_rail() -> None:
    assert EnergyMeter("none", lambda _: None, lambda _: {}).main_rail is None
