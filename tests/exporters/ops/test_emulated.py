"""Two operators in slmc-run of other processors; 'make test-runtime-cross' runs all cases under each emulator."""

from __future__ import annotations

import numpy as np
import pytest
from driven import Driver, command
from reading_cases import BY_HAND

from targets.remote.transport import EMULATORS

SOME = [next(case for case in BY_HAND if case.operator == name) for name in ("QLinear", "CachedAttentionInt8")]


@pytest.mark.parametrize("name", EMULATORS)
def test_two_operators(name, driver_reading_of):
    driver = Driver(command("slmc-run-driver", name))
    for case in SOME:
        outputs = driver_reading_of(driver)(case.operator, case.inputs, case.attributes)
        for output, expected in zip(outputs, case.expected, strict=True):
            np.testing.assert_allclose(output, expected, rtol=1e-6, atol=1e-6)
    driver.close()
