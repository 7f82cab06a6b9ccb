import json

from ernerf_ti.experiments.bench_live import measure_drift, measure_latency, rate_of_sessions, time_parts
from ernerf_ti.live import LivePortrait
from tests.live.conftest import trained  # noqa: F401


def test_figures_of_a_live_portrait(trained, monkeypatch):  # noqa: F811
    portrait = LivePortrait(trained)
    portrait.warm_up()
    parts = time_parts(portrait, 2)
    of_frame = ("features", "picture, 1 of the size", "encoding (VP8)")
    assert parts["from sound to packets"] == sum(parts[name] for name in of_frame) > parts["audio encoder"] > 0
    assert all(value >= 0 for value in parts.values())
    with monkeypatch.context() as patch:
        patch.setattr("ernerf_ti.experiments.bench_live.perf_counter", iter((10.0, 12.0)).__next__)
        assert rate_of_sessions(portrait, 3, 2) == 3 * 2 / 2.0
    drift = measure_drift(portrait, 16.0)
    assert drift["largest offset of a frame, ms"] < 20
    assert abs(drift["sound pushed less sound spoken or waiting, s"]) < 0.1
    latency = measure_latency(portrait, 1.0)
    counts = [value for name, value in latency.items() if name.endswith("frames")]
    assert 10 <= sum(counts) <= 26
    json.dumps([parts, drift, latency])
