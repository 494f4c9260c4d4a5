"""What the tests of this floor share: the compiled kernels, where they are installed and ONNX Runtime takes them."""

from __future__ import annotations

import onnxruntime as ort
import pytest

from exporters.artifact.errors import NotAvailable
from exporters.artifact.native_library import library_path


@pytest.fixture(scope="session")
def native_path() -> str:
    """Path of the operator library; the test is skipped where there is none."""
    try:
        path = str(library_path())
    except NotAvailable as missing:
        pytest.skip(str(missing))
    try:
        ort.SessionOptions().register_custom_ops_library(path)
    except Exception as error:  # the runtime raises bare RuntimeErrors
        pytest.skip(f"{path} does not register with ONNX Runtime: {error}")
    return path
