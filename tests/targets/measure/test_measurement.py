"""What is asked of a measurement, and its figures by hand."""

from __future__ import annotations

import dataclasses
import json

import pytest

from exporters.artifact.errors import NotAvailable, SlmcError
from exporters.artifact.manifest import Io, Percentiles
from exporters.artifact.parsing import parse
from targets.device.measurement import Measurement, MeasureRequest, prompt_chunk, to_measured
from targets.device.memory import Memory


def example() -> Measurement:
    """Two prompts of 100 tokens, five generated tokens; weights are read at a tenth of the bandwidth."""
    return Measurement(
        cpu="Some core",
        isa="neon",
        threads=1,
        ort_version="1.31.1",
        native_library="libslmc_ops.so",
        prompt_tokens=100,
        generate_tokens=5,
        chunk_tokens=64,
        repetitions=1,
        random_tokens=True,
        load_ms=12.5,
        first_token_ms=9.0,
        prompt_wall_ms=(40.0, 60.0),
        prompt_cpu_ms=(39.0, 41.0),
        decode_wall_ms=(5.0, 4.0, 5.0, 5.0, 9.0),
        decode_cpu_ms=(4.0, 4.0, 4.0, 4.0, 4.0),
        reference_wall_ms=(4.0, 5.0, 6.0),
        reference_cpu_ms=(4.0, 4.0, 4.0),
        baseline=Memory(50, 40, 30, 20, 30, 55),
        loaded=Memory(60, 50, 40, 30, 30, 65),
        ended=Memory(70, 60, 45, 35, 35, 75),
        state_bytes=16,
        read_bandwidth_gbs=10.0,
        temperature_before_c=None,
        temperature_after_c=51.5,
    )


def test_figures_by_hand():
    measurement = example()
    assert measurement.prompt_tps == 2000.0
    assert measurement.decode_tps == 200.0
    assert measurement.decode_cpu_ms_percentiles == Percentiles(4.0, 4.0, 4.0, 4.0)
    assert measurement.reference_wait == 1.25


def test_doubts_where_a_process_is_always_held_up():
    """Reference work of 1.5 ms meets one pause of 3 ms or two; tokens say that a quarter of the core was there."""
    held = dataclasses.replace(
        example(), threads=1, reference_wall_ms=(4.5, 7.5, 7.5), reference_cpu_ms=(1.5, 1.5, 1.5),
        decode_wall_ms=(12.0, 16.0, 12.0, 16.0), decode_cpu_ms=(3.5, 3.5, 3.5, 3.5),
    )  # fmt: skip
    assert held.reference_wait == 5.0 and held.doubts_beside(4.0) == ()
    (doubt,) = dataclasses.replace(held, decode_wall_ms=(20.0, 20.0, 20.0, 20.0)).doubts_beside(4.0)
    assert doubt.startswith("other programs took 30% of the core")


def test_manifest_section():
    measured = to_measured(example(), "raspberry-pi-4", weight_bytes_per_token=5_000_000)
    # 5 MB x 200 per second = 1 GB/s of 10 GB/s
    assert measured.bandwidth_fraction == pytest.approx(0.1)
    assert (measured.target, measured.native, measured.read_bandwidth_gbs) == ("raspberry-pi-4", True, 10.0)
    assert (measured.rss_baseline_bytes, measured.rss_after_load_bytes, measured.rss_peak_bytes) == (50, 60, 75)
    assert (measured.private_bytes, measured.file_backed_bytes) == (45, 35)
    # sorted 4 5 5 5 9: p90 lies 0.6 of the way from the fourth to the fifth
    assert dataclasses.astuple(measured.decode_ms) == pytest.approx((5.0, 7.4, 8.2, 8.84))


def test_manifest_section_without_bandwidth():
    without = dataclasses.replace(example(), read_bandwidth_gbs=None)
    assert to_measured(without, "host", 5_000_000, bandwidth_gbs=2.0).bandwidth_fraction == pytest.approx(0.5)
    with pytest.raises(NotAvailable, match="state bandwidth_gbs"):
        to_measured(without, "host", 5_000_000)


def test_manifest_section_needs_both_tests():
    with pytest.raises(SlmcError, match="lacks prompt processing or generation"):
        to_measured(dataclasses.replace(example(), prompt_wall_ms=()), "host", 1)


def test_measurement_survives_json():
    text = json.dumps(dataclasses.asdict(example()))
    assert parse(Measurement, json.loads(text), "measurement") == example()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("repetitions", 0),
        ("threads", 0),
        ("chunk_tokens", 0),
        ("budget_s", 0),
        ("timeout_s", -1),
        ("prompt_tokens", -1),
        ("depth_tokens", -1),
    ],
)
def test_bad_requests(field, value):
    with pytest.raises(SlmcError, match=field):
        MeasureRequest(**{field: value})


def test_a_prompt_is_read_in_larger_chunks_where_logits_can_be_asked_for():
    io = Io("tokens", "logits", ())
    assert [prompt_chunk(io, size) for size in (100, 32_000, 49_152, 300_000)] == [64, 32, 16, 8]
    assert prompt_chunk(dataclasses.replace(io, logits_from="from"), 300_000) == 64


def test_nothing_asked():
    with pytest.raises(SlmcError, match="one must be more than 0"):
        MeasureRequest(prompt_tokens=0, generate_tokens=0)
