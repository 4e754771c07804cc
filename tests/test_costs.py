"""The costs against models that are really built, on meta where they are large."""

import dataclasses

import pytest
import torch

from qwen2_book import costs
from qwen2_book.cache import KVCache
from qwen2_book.config import Qwen2Config
from qwen2_book.model import Qwen2

MOE = {
    "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
}  # fmt: skip
SMALL = Qwen2Config(
    vocab_size=97, hidden_size=32, intermediate_size=48, num_hidden_layers=4,
    num_attention_heads=4, num_key_value_heads=2, dtype="float32",
)  # fmt: skip
LAYOUTS = {
    "dense": SMALL,
    "tied": dataclasses.replace(SMALL, tie_word_embeddings=True),
    "wide heads": dataclasses.replace(SMALL, head_dim=20),
    "moe": dataclasses.replace(SMALL, **MOE),
    "mixed": dataclasses.replace(SMALL, **MOE, decoder_sparse_step=2, mlp_only_layers=(3,)),
    "window": SMALL.with_window(5, full_layers=1),
    "sinks": SMALL.with_window(5, 2),
}
# total, non-embedding, active, active non-embedding: counted from the released shapes
FAMILY = {
    "Qwen2-0.5B": (494_032_768, 357_898_112, 494_032_768, 357_898_112),
    "Qwen2-1.5B": (1_543_714_304, 1_310_340_608, 1_543_714_304, 1_310_340_608),
    "Qwen2-7B": (7_615_616_512, 6_525_621_760, 7_615_616_512, 6_525_621_760),
    "Qwen2-72B": (72_706_203_648, 70_214_787_072, 72_706_203_648, 70_214_787_072),
    "Qwen2-57B-A14B": (57_408_658_944, 56_319_581_696, 14_249_270_784, 13_160_193_536),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_parameters_are_those_of_the_model(layout):
    config = LAYOUTS[layout]
    model, counts = Qwen2(config), costs.parameters(config)
    assert counts["total"] == sum(p.numel() for p in model.parameters())
    parts = {"embedding": "embed_tokens", "attention": "self_attn", "norm": "norm"}
    for part, name in parts.items():
        found = sum(p.numel() for n, p in model.named_parameters() if name in n)
        assert counts[part] == found, part


@pytest.mark.parametrize("name", FAMILY)
def test_the_family(name):
    counts = costs.parameters(Qwen2Config.named(name))
    keys = ("total", "non_embedding", "active", "active_non_embedding")
    assert tuple(counts[key] for key in keys) == FAMILY[name]
    with torch.device("meta"):
        model = Qwen2(Qwen2Config.named(name))
    assert sum(p.numel() for p in model.parameters()) == counts["total"]
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ring", [True, False])
@pytest.mark.parametrize("dtype", costs.BYTES)
def test_cache_bytes_are_those_of_the_cache(layout, ring, dtype):
    config = LAYOUTS[layout]
    cache = KVCache(config, 3, 70, dtype=getattr(torch, dtype), ring=ring)
    assert costs.cache_bytes(config, 70, dtype, batch=3, ring=ring) == cache.nbytes


def test_cache_of_the_family():
    per_token = {name: costs.cache_bytes(Qwen2Config.named(name), 1) for name in FAMILY}
    assert list(per_token.values()) == [12_288, 28_672, 57_344, 327_680, 57_344]


@pytest.mark.parametrize("layout", ["dense", "tied", "wide heads", "moe", "mixed"])
def test_flops_are_those_counted_by_pytorch(layout):
    from torch.utils.flop_counter import FlopCounterMode

    config, length = LAYOUTS[layout], 11
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        Qwen2(config)(torch.zeros(1, length, dtype=torch.long))
    counted = counter.get_flop_counts()["Global"]
    matmuls = sum(n for op, n in counted.items() if "attention" not in str(op))
    assert length * costs.matmul_flops(config) == matmuls


def test_attention_flops_by_counting_pairs():
    config = LAYOUTS["window"]
    pairs = sum(i + 1 for i in range(11)) + 3 * sum(min(i + 1, 5) for i in range(11))
    assert costs.attention_flops(config, 11) == 4 * 4 * 8 * pairs
    whole = costs.prefill_flops(config, 11) - 11 * costs.matmul_flops(config)
    assert whole == costs.attention_flops(config, 11)


@pytest.mark.parametrize("layout", ["dense", "tied", "wide heads", "moe", "mixed"])
def test_activations_are_those_that_autograd_keeps(layout):
    config, length = LAYOUTS[layout], 48
    model = Qwen2(config)
    own, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def look(tensor):
        storage = tensor.untyped_storage()
        if tensor.is_floating_point() and storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes() // 4
        return tensor

    ids = torch.randint(config.vocab_size, (1, length))
    with torch.autograd.graph.saved_tensors_hooks(look, lambda tensor: tensor):
        loss = torch.nn.functional.cross_entropy(model(ids)[0], ids[0])
    assert sum(kept.values()) == length * costs.activation_numbers(config) + 1  # and one a text
    assert loss > 0


def test_memory_of_training():
    small = LAYOUTS["tied"]
    found = costs.training_bytes(small, 10, batch=3)
    total = costs.parameters(small)["total"]
    assert found["weights"] == found["gradients"] == 4 * total
    parameters = list(Qwen2(small).parameters())
    optimizer = torch.optim.AdamW(parameters)
    for each in parameters:
        each.grad = torch.zeros_like(each)
    optimizer.step()
    states = [t for s in optimizer.state.values() for t in s.values() if t.ndim]
    assert found["optimizer"] == sum(t.numel() * t.element_size() for t in states)
    assert found["activations"] == 4 * 30 * costs.activation_numbers(small)
