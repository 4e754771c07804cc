"""The roofline in Python: its numbers are those of the configurations and of the stored runs."""

import json
import math
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import roofline_data

from qwen2_book import Qwen2Config, costs, load, optimize
from qwen2_book.packed import PackedLinear
from qwen2_book.widgets import Roofline
from qwen2_book.widgets.roofline import BYTES, SIZES, STORED, WEIGHTS, stored

ROOT = Path(__file__).parent.parent


def config_of(figure: Roofline) -> Qwen2Config:
    return Qwen2Config.named(f"Qwen2-{SIZES[figure.size]}")


@pytest.mark.parametrize("size", range(len(SIZES)))
def test_operations_are_those_of_the_configuration(size):
    for tokens in (4, 9):
        one = Roofline(size=size, log_tokens=tokens)
        config = config_of(one)
        assert one.matrix_operations() == costs.matmul_flops(config)
        each = costs.attention_flops(config, 2**tokens + 1) - costs.attention_flops(
            config, 2**tokens
        )
        assert one.attention_operations() == each
        whole = Roofline(size=size, log_tokens=tokens, prefill=1, log_batch=1)
        head = 2 * config.vocab_size * config.hidden_size * (2**tokens - 1)
        every = costs.prefill_flops(config, 2**tokens) - head
        assert whole.matrix_operations() + whole.attention_operations() == 2 * every


@pytest.mark.parametrize("size", range(len(SIZES)))
def test_bytes_are_those_of_weights_and_cache(size):
    for weights, dtype in enumerate(("float32", "bfloat16")):
        figure = Roofline(size=size, weights=weights, log_batch=3, log_tokens=10)
        config = config_of(figure)
        assert figure.weight_bytes() == costs.matmul_flops(config) / 2 * costs.BYTES[dtype]
        assert figure.cache_bytes() == costs.cache_bytes(config, 1025, dtype, batch=8)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_bytes_of_packed_weights_are_those_of_a_packed_model(kind):
    plain, _ = load(device="cpu")
    fast = optimize(plain, kind)
    found = {"attention": [0, 0], "feed_forward": [0, 0], "head": [0, 0]}
    for name, matrix in fast.named_modules():
        part = "attention" if "attn" in name else "feed_forward" if "mlp" in name else "head"
        found[part][0] += matrix.nbytes if isinstance(matrix, PackedLinear) else 0
    for name, weight in plain.named_parameters():
        part = "attention" if "attn" in name else "feed_forward" if "mlp" in name else "head"
        if weight.ndim == 2:
            found[part][1] += weight.numel()
    for (size, count), each in zip(found.values(), BYTES[kind], strict=True):
        assert math.isclose(size / count, each, rel_tol=0.02)  # the tiny model's rows are short


def test_the_limit_is_the_longer_of_two_times():
    for weights in range(4):
        for prefill in (0, 1):
            for batch in range(7):
                figure = Roofline(weights=weights, prefill=prefill, log_batch=batch)
                times = figure.memory_seconds(), figure.arithmetic_seconds()
                assert figure.limit() == figure.batch * figure.new / max(times)
                assert figure.bound() == ("memory", "arithmetic")[times[1] > times[0]]
    assert Roofline(weights=0).bound() == "memory"
    assert Roofline(weights=0, prefill=1, log_tokens=12).bound() == "arithmetic"


def test_many_rows_read_wide_weights():
    assert Roofline(weights=3, log_batch=4).read == 3
    assert Roofline(weights=3, log_batch=5).read == Roofline(weights=3, prefill=1).read == 1
    assert Roofline(weights=0, log_batch=5).read == 0


def test_another_machine_has_no_ceilings_and_no_measured_points():
    fast = Roofline(bandwidth=2e12, speed=4e14, weights=3)
    assert fast.bound() == "memory" and fast.measured() is None
    assert math.isclose(fast.limit(), 2e12 / (fast.weight_bytes() + fast.cache_bytes()))
    for wrong in ({"bandwidth": 1e9}, {"speed": 1e9}, {"bandwidth": -1.0, "speed": 1e9}):
        with pytest.raises(ValueError, match="both bandwidth and speed"):
            Roofline(**wrong)


def test_the_stored_points_are_those_of_the_benchmarks():
    steps = json.loads((ROOT / "benchmarks" / "steps.json").read_text(encoding="utf-8"))
    assert roofline_data.data(steps) == stored()
    assert json.loads(STORED.read_text()) == stored()
    assert {point[0] for point in stored()["points"]} == set(range(4))
    found = Roofline(weights=3).measured()
    assert found == pytest.approx(1 / statistics.median(steps["batches"]["int4"]["1"]), abs=0.01)
    assert Roofline(weights=3, size=1).measured() is None


def test_no_point_is_above_the_roof():
    """A tenth is allowed: the limits were measured at other moments of a noisy machine."""
    for weights, prefill, batch, tokens, rate in stored()["points"]:
        logs = (batch.bit_length() - 1, tokens.bit_length() - 1)
        figure = Roofline(weights=weights, prefill=prefill, log_batch=logs[0], log_tokens=logs[1])
        assert figure.measured() == rate
        assert rate <= 1.1 * figure.limit(), (WEIGHTS[weights], prefill, batch, tokens)


def test_nonsense_is_moved_and_said():
    figure = Roofline(weights="int2", log_batch=99)
    assert (figure.weights, figure.log_batch) == (1, 6)
    assert "weights int2 is outside 0 to 3" in figure.note


def test_the_description_says_what_bounds():
    said = Roofline(weights=0).description()
    assert "one token of Qwen2-0.5B in float32" in said and "bound by memory" in said
    assert re.search(r"At the limit [\d.]+ tokens/s. Measured: [\d.]+ tokens/s.", said)


def test_the_data_is_made_by_its_tool():
    command = [sys.executable, str(ROOT / "tools" / "roofline_data.py")]
    before = STORED.read_bytes()
    assert subprocess.run(command, check=False, cwd=ROOT).returncode == 0
    assert STORED.read_bytes() == before
