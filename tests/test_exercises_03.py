"""The exercises of chapter 03: wrong answers are refused by the property that names their fault."""

import pytest
import torch
from planted import failed, printed

from qwen2_book.exercises import EXERCISES, check
from qwen2_book.exercises.stream_checks import norm


def trusts_only_wide_rows(judged):
    """Catches the running sum, and is fooled by squares in half precision."""
    row, ones = torch.ones(1, 4096).bfloat16(), torch.ones(4096).bfloat16()
    return bool(((judged(row, ones, 1e-6).float() - 1).abs() < 0.02).all())


def trusts_equal_bits(judged):
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    weight = torch.full((64,), 1.3).bfloat16()
    return torch.equal(judged(x, weight, 1e-6), norm(x, weight, 1e-6))


def keeps_hooks(model, ids):
    attention, feed_forward = [], []
    for layer in model.model.layers:
        layer.self_attn.register_forward_hook(lambda m, i, out: attention.append(out))
        layer.mlp.register_forward_hook(lambda m, i, out: feed_forward.append(out))
    model(ids)
    return torch.stack(attention), torch.stack(feed_forward)


def whole_streams(model, ids):
    kept = []
    hooks = [
        layer.register_forward_hook(lambda m, i, out: kept.append(out))
        for layer in model.model.layers
    ]
    model(ids)
    for hook in hooks:
        hook.remove()
    return torch.stack(kept), torch.stack(kept)


@pytest.mark.parametrize(
    ("name", "wrong", "fault"),
    [
        ("03-3", lambda w, m: (m * w).T, "the layer keeps its shape"),
        ("03-3", lambda w, m: m, "the same outputs"),
        ("03-3", lambda w, m: m.mul_(w), "the parts are left alone"),
        ("03-4", lambda judged: True, "a sum in bfloat16 is caught"),
        ("03-4", lambda judged: False, "a good norm passes"),
        ("03-4", trusts_equal_bits, "a good norm passes"),
        ("03-4", trusts_only_wide_rows, "squares in half precision are caught"),
        ("03-6", whole_streams, "each addition"),
        ("03-6", keeps_hooks, "no hook stays behind"),
    ],
)
def test_wrong_code_is_refused_by_name(name, wrong, fault):
    verdict = check(name, wrong)
    assert not verdict.right
    assert f"“{fault}”" in verdict.message, verdict


def in_place(x, weight, eps, layer):
    wide = x.float()
    wide *= torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return x + layer(weight * wide.to(x.dtype))


def outside(x, weight, eps, layer):
    wide = x.float()
    rms = wide.square().mean(-1, keepdim=True).sqrt()
    return x + layer(weight * (wide / (rms + eps)).to(x.dtype))


def narrow(x, weight, eps, layer):
    scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return x + layer(weight * (x * scale))


def stays_wide(x, weight, eps, layer):
    return x + layer(norm(x.float(), weight.float(), eps))


@pytest.mark.parametrize(
    ("planted", "fault"),
    [
        (in_place, "the stream is left alone"),
        (outside, "ε inside the root"),
        (narrow, "a massive number in float16"),
        (stays_wide, "the dtype stays"),
    ],
)
def test_each_planted_bug_fails_its_own_property_and_no_other(planted, fault):
    assert failed("03-5", planted) == [fault]


def test_the_printed_function_has_all_three_bugs():
    three = {each.name for each in EXERCISES["03-5"].properties[:3]}
    assert three <= set(failed("03-5", printed("03_residual_stream", "step")))


def test_the_hints_are_for_answers_people_reach():
    head, total = 152_064 * 3584, 7_615_616_512
    reached = (200 * head / total, 100 * head / (total - 2 * head), 100 * 151_936 * 896 / 494e6)
    for value, hint in zip(reached, EXERCISES["03-1"].hints, strict=True):
        assert value == pytest.approx(hint, rel=0.01)
