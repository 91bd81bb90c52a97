"""The benchmark's own arithmetic: what the gate lets pass, and the work that rates are computed from."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from kernel_bench import counts, gate, limits
from kernel_bench.results import Figure, Row, ratios_of
from kernel_bench.timing import Action, interleaved, spread

from quicksurf.kernels.layout import encoding_layout, network_layout

COMMITTED = {"encode: times the twin": 40.0, "MLP: fraction of sgemm": 0.8, "scan: fraction of copy": 0.5}
GRID = {"otype": "HashGrid", "n_levels": 3, "log2_hashmap_size": 8, "base_resolution": 4}


def test_equal_ratios_pass_the_gate():
    assert gate.regressions(COMMITTED, COMMITTED) == []
    assert gate.regressions({name: 1.3 * ratio for name, ratio in COMMITTED.items()}, COMMITTED) == []


@pytest.mark.parametrize("name", COMMITTED)
def test_a_ratio_that_fell_fails_and_is_named(name):
    tolerance = gate.tolerance_of(name)
    inside = COMMITTED | {name: COMMITTED[name] * (1 - 0.9 * tolerance)}
    assert gate.regressions(inside, COMMITTED) == []
    outside = COMMITTED | {name: COMMITTED[name] * (1 - 1.1 * tolerance)}
    (line,) = gate.regressions(outside, COMMITTED)
    assert line.startswith(name)


def test_a_ratio_that_is_not_measured_or_no_number_fails():
    fewer = {name: ratio for name, ratio in COMMITTED.items() if "MLP" not in name}
    assert len(gate.regressions(fewer, COMMITTED)) == 1
    assert len(gate.regressions(COMMITTED | {"scan: fraction of copy": float("nan")}, COMMITTED)) == 1


def test_new_ratios_need_no_baseline():
    assert gate.regressions(COMMITTED | {"new: fraction of copy": 0.1}, COMMITTED) == []


def test_the_baseline_survives_writing_and_holds_ratios_alone(tmp_path):
    row = Row("MLP")
    row.add("rate", spread([100.0]), "GFLOP/s")
    row.add_ratio("fraction of sgemm", spread([0.7, 0.8123, 0.9]), 0.65)
    gate.write_baseline(tmp_path / "baseline.json", ratios_of([row]))
    baseline = gate.read_baseline(tmp_path / "baseline.json")
    assert baseline["ratios"] == {"MLP: fraction of sgemm": 0.812}
    assert baseline["machine"] == gate.machine()


def test_targets_are_bounds_from_either_side():
    value = spread([90.0, 100.0, 120.0])
    assert Figure("rate", value).met is None
    assert Figure("rate", value, target=100.0).met and not Figure("rate", value, target=101.0).met
    assert Figure("memory", value, target=100.0, at_most=True).met
    assert not Figure("memory", value, target=99.0, at_most=True).met


def test_flops_equal_those_counted_by_hand():
    """32→64→16: 2 (32·64 + 64·16); 32→64→64→3: 2 (32·64 + 64·64 + 64·3); three times that with backward."""
    one = network_layout(32, 16, {"otype": "Identity"}, {"n_neurons": 64, "n_hidden_layers": 1})
    two = network_layout(32, 3, {"otype": "Identity"}, {"n_neurons": 64, "n_hidden_layers": 2})
    assert counts.mlp_flops(one) == 6144 and counts.mlp_flops(two) == 12672
    assert counts.network_work(two, 10, 0) == (126720, 0)
    assert counts.network_work(two, 0, 10) == (380160, 0)
    assert counts.mlp_flops(encoding_layout(3, GRID)) == 0


def test_accesses_are_eight_corners_of_the_active_levels():
    layout = encoding_layout(3, GRID)
    assert counts.accesses(layout) == 24 and counts.accesses(layout, 2) == 16
    assert counts.network_work(layout, 5, 7) == (0, 24 * (5 + 14))


def test_bytes_equal_those_counted_by_hand():
    """10 samples of 3 values on 2 rays: 40 floats in and 6 out; backward 10 + 30 + 6 in and 10 + 30 out."""
    assert counts.accumulate_forward_bytes(10, 2, 3) == 4 * 46
    assert counts.accumulate_backward_bytes(10, 2, 3) == 4 * 86
    assert counts.logits_forward_bytes(10, 2) == 4 * 22 and counts.logits_backward_bytes(10, 2) == 4 * 32
    assert counts.step_scan_bytes(10, 10, 2) == 4 * (22 + 32 + 46 + 86)


def test_the_floor_is_the_sum_of_its_parts():
    work, rates = counts.StepWork(6e9, 2e8, 3e7, 1e7), counts.Rates(2e11, 4e8, 2e10)
    assert counts.floor_seconds(work, rates) == pytest.approx(0.03 + 0.5 + 0.002)


def test_entries_read_are_those_of_the_grid():
    """A point in the middle of a dense cell reads its 8 corners: x fastest, then y, then z."""
    layout = encoding_layout(3, GRID | {"n_levels": 1, "base_resolution": 4, "log2_hashmap_size": 8})
    point = torch.full((1, 3), 0.5)  # at 0.5 · 3 + 0.5 = 2 in cells
    expected = [x + 4 * (y + 4 * z) for z in (2, 3) for y in (2, 3) for x in (2, 3)]
    assert limits.entries_read(layout, point).tolist() == expected


def test_threads_share_the_chunks_of_a_limit():
    done = []
    limit = limits.Limit("test", "", 1.0, 2.0, 50, lambda thread, n: lambda: done.append(thread))
    limit.on(3)()
    assert len(done) == 50 and limit.call_work == 100
    limit.on(1)()
    assert len(done) == 100


def test_actions_are_measured_in_turn():
    order = []
    actions = {name: Action(lambda name=name: order.append(name)) for name in "ab"}
    seconds = interleaved(actions, 3, sample_seconds=1e-9)
    assert order[-6:] == list("ababab") and len(seconds["a"]) == len(seconds["b"]) == 3
