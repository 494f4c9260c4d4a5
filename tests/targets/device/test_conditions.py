"""Machines that slow down, as /sys describes them, and what is said of the measurement then."""

from __future__ import annotations

import pytest
from machines import write

from targets.device.conditions import Conditions, conditions, slowing

CALM = Conditions("performance", 1500.0, 50.0, 3, None)
QUIET = {"reference_wall_ms": (1.0,) * 6, "reference_cpu_ms": (1.0,) * 6}


def test_a_board(tmp_path):
    cpu = "sys/devices/system/cpu/cpu"
    files = {
        f"{cpu}0/cpufreq/scaling_governor": "ondemand\n",
        f"{cpu}0/cpufreq/scaling_cur_freq": "1500000\n",
        f"{cpu}0/thermal_throttle/core_throttle_count": "2\n",
        f"{cpu}1/thermal_throttle/core_throttle_count": "3\n",
        "sys/class/thermal/thermal_zone0/temp": "61000\n",
        "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n",
    }
    assert conditions(write(tmp_path, files)) == Conditions("ondemand", 1500.0, 61.0, 5, True)


def test_a_machine_that_says_nothing(tmp_path):
    assert conditions(tmp_path) == Conditions(None, None, None, None, None)


def test_trend():
    assert slowing((1.0, 1.0, 1.1, 1.1, 1.5, 1.5)) == 1.5
    assert slowing((1.0, 9.0)) == 1.0


def test_nothing_to_doubt(measurement):
    assert measurement(**QUIET, before=CALM, after=CALM).doubts == ()
    assert measurement(**QUIET).doubts == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reference_cpu_ms": (1.0, 1.0, 1.0, 1.0, 1.3, 1.3)}, "slowed down by 30% meanwhile"),
        ({"reference_wall_ms": (2.0,) * 6}, "other programs took 50% of the core"),
        ({"after": Conditions("performance", 1500.0, 50.0, 5, None)}, "throttled itself 2 times"),
        ({"after": Conditions("performance", 1500.0, 50.0, 3, True)}, "supply voltage was too low"),
        ({"after": Conditions("performance", 1500.0, 83.0, 3, None)}, "83 degrees"),
        ({"after": Conditions("performance", 1000.0, 50.0, 3, None)}, "clock fell from 1500 to 1000 MHz"),
        ({"after": Conditions("powersave", 1500.0, 50.0, 3, None)}, "governor is 'powersave'"),
    ],
)
def test_doubts(measurement, changes, said):
    found = measurement(**({**QUIET, "before": CALM, "after": CALM} | changes)).doubts
    assert len(found) == 1 and said in found[0]
