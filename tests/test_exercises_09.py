"""Exercises of chapter 09: known wrong answers are refused, each planted bug by its own test."""

import pytest
import torch
from planted import failed, printed
from test_exercises import answer_of

from qwen2_book import Qwen2Config, costs
from qwen2_book.exercises import EXERCISES, check
from qwen2_book.moe import MixtureOfExperts
from qwen2_book.parity import layouts, random_ids, random_model

# the five planted bugs, in the order in which `check` meets them: (as printed, repaired)
REPAIRS = [
    ("keepdim=True).sqrt() + eps)", "keepdim=True) + eps).sqrt()"),
    (
        'linear(h, "gate_proj") * F.silu(linear(h, "up_proj"))',
        'F.silu(linear(h, "gate_proj")) * linear(h, "up_proj")',
    ),
    ('x @ w[f"{name}.weight"].T', 'F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))'),
    ("repeat(1, heads // kv_heads, 1, 1)", "repeat_interleave(heads // kv_heads, dim=1)"),
    ("triu(2)", "triu(1)"),
]
TESTS = [each.name for each in EXERCISES["09-4"].properties]


def test_the_repaired_block_is_right():
    assert check("09-4", printed("09_the_whole_model", "block", *REPAIRS)).right


@pytest.mark.parametrize("bug", range(5))
def test_each_bug_alone_is_named_by_its_own_test(bug):
    repairs = [each for i, each in enumerate(REPAIRS) if i != bug]
    block = printed("09_the_whole_model", "block", *repairs)
    found = failed("09-4", block)
    assert found[0] == TESTS[bug]
    assert f"“{TESTS[bug]}” fails" in check("09-4", block).message
    assert not set(TESTS[:bug]) & set(found)


@pytest.mark.parametrize("done", range(5))
def test_repairing_in_order_climbs_the_ladder(done):
    block = printed("09_the_whole_model", "block", *REPAIRS[:done])
    assert f"“{TESTS[done]}” fails" in check("09-4", block).message


def test_a_wrong_rotation_is_left_to_the_last():
    repairs = [*REPAIRS, ("a * cos - b * sin", "a * cos + b * sin")]
    assert failed("09-4", printed("09_the_whole_model", "block", *repairs)) == ["seven tokens"]


def by_comparison(found, expected, tolerance):
    """The obvious way, which NaN passes."""
    for name, right in expected.items():
        if name not in found or found[name].shape != right.shape:
            return name
        length = right.norm(dim=-1)
        length = length.maximum(length.median()).clamp(min=1e-30)
        if ((found[name] - right).norm(dim=-1) / length > tolerance).any():
            return name
    return None


def whole_tensor(found, expected, tolerance):
    for name, right in expected.items():
        off = (found[name] - right).norm() / right.norm() if name in found else torch.nan
        if not off <= tolerance:
            return name
    return None


def in_the_order_found(found, expected, tolerance):
    sound = answer_of("09-3")
    for name in found:
        if sound({name: found[name]}, {name: expected[name]}, tolerance):
            return name
    return None


def shapes_not_looked_at(found, expected, tolerance):
    found = {n: found[n].expand_as(expected[n]) for n in found}
    return answer_of("09-3")(found, expected, tolerance)


def zeros_divided(found, expected, tolerance):
    for name, right in expected.items():
        ours = found.get(name)
        if ours is None or ours.shape != right.shape:
            return name
        if not ((ours - right).norm(dim=-1) / right.norm(dim=-1) <= tolerance).all():
            return name
    return None


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (by_comparison, "NaN"),
        (whole_tensor, "each by its own length"),
        (in_the_order_found, "the first"),
        (shapes_not_looked_at, "missing, or of another shape"),
        (zeros_divided, "zeros"),
        (lambda found, expected, tolerance: None, "the first"),
        (lambda found, expected, tolerance: next(iter(expected)), "nothing is wrong"),
    ],
)
def test_wrong_comparisons(wrong, named):
    verdict = check("09-3", wrong)
    assert not verdict.right
    assert f"“{named}” fails" in verdict.message


def test_the_hinted_numbers_are_reached_by_the_mistakes_they_name():
    c = Qwen2Config.named("Qwen2-1.5B")
    key = 4 * c.num_hidden_layers * c.num_attention_heads * c.head_dim
    products = costs.matmul_flops(c)
    head = 2 * c.vocab_size * c.hidden_size
    reached = [2 * products / key, (products - head) / key, 6 * products / key, 28 * products / key]
    small = Qwen2Config.named("Qwen2-0.5B")
    per_key = 4 * small.num_hidden_layers * small.num_attention_heads * small.head_dim
    for wrong in (costs.matmul_flops(small) / per_key, *reached):
        assert "Equal terms" not in check("09-1", wrong).message
    seven = Qwen2Config.named("Qwen2-7B")
    weights, token = costs.weight_bytes(seven), costs.cache_bytes(seven, 1)
    room = 24 * 2**30 - weights
    for wrong in ((24e9 - weights) / token, 24 * 2**30 / token, 2 * room / token, room / 2 / token):
        assert "Bytes of the card" not in check("09-2", wrong).message


def test_renormalising_changes_what_09_5_says(monkeypatch):
    before = {name: random_model(c)(random_ids(c)) for name, c in layouts().items()}
    old = MixtureOfExperts.__init__

    def renormalising(self, config):
        old(self, config)
        self.renormalise = True

    monkeypatch.setattr(MixtureOfExperts, "__init__", renormalising)
    after = {name: random_model(c)(random_ids(c)) for name, c in layouts().items()}
    changed = sum(not torch.allclose(before[n], after[n], atol=1e-3) for n in before)
    assert check("09-5", changed).right


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("visible(at, at, window)[:, None]", "None", "sliding from layer 2"),
        ("if c.tie_word_embeddings:", "if False:", "dense, tied head"),
        ("if c.is_sparse(i)", "if c.num_experts", "experts, dense between"),
        ("self.lm_head(self.model.norm(x))", "self.lm_head(x)", "dense, own head"),
    ],
)
def test_models_of_ones_own_that_are_wrong(old, new, named):
    from test_exercises import solutions

    source = solutions()["09-6"]
    assert old in source
    space = {"torch": torch}
    exec(source.replace(old, new), space)
    verdict = check("09-6", space["answer"])
    assert not verdict.right
    assert f"“{named}”" in verdict.message
