"""What right answers to the exercises of chapter 09 do: each check raises AssertionError if not."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from qwen2_book import costs
from qwen2_book.config import Qwen2Config
from qwen2_book.model import DecoderLayer
from qwen2_book.parity import distance, layouts, load_as_from_file, random_ids, random_model
from qwen2_book.rope import RotaryEmbedding


def crossing() -> float:
    """Tokens at which attention costs Qwen2-1.5B as much as its matrices."""
    config = Qwen2Config.named("Qwen2-1.5B-Instruct")
    per_key = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    return costs.matmul_flops(config) / per_key


def cached_tokens() -> int:
    """Tokens of cache beside Qwen2-7B on 24 GiB."""
    config = Qwen2Config.named("Qwen2-7B")
    return (24 * 2**30 - costs.weight_bytes(config)) // costs.cache_bytes(config, 1)


def renormalised() -> int:
    """Layouts that a renormalised router changes."""
    return sum(c.num_experts > 0 and not c.norm_topk_prob for c in layouts().values())


# 09-3: first_wrong(found, expected, tolerance)


def _tensors(**changed: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Found and expected: three tensors of two vectors, some of the found ones changed."""
    expected = {
        "stream": torch.tensor([[300.0, 400.0], [3.0, 4.0], [0.0, 5.0]]),
        "attention": torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
        "logits": torch.tensor([[2.0, 0.0], [0.0, 2.0]]),
    }
    return {name: changed.get(name, each.clone()) for name, each in expected.items()}, expected


def _says(first_wrong: Callable, wanted: str | None, tolerance: float = 0.01, **changed) -> None:
    found, expected = _tensors(**changed)
    assert first_wrong(found, expected, tolerance) == wanted


def nothing_wrong(first_wrong: Callable) -> None:
    """Equal tensors, and tensors within the tolerance."""
    _says(first_wrong, None)
    _says(first_wrong, None, logits=torch.tensor([[2.01, 0.0], [0.0, 2.0]]))


def the_first(first_wrong: Callable) -> None:
    """Two are wrong: the first in the order of the expected ones is named."""
    wrong = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    found, expected = _tensors(attention=wrong, logits=wrong)
    turned = dict(reversed(found.items()))
    assert first_wrong(turned, expected, 0.01) == "attention"


def own_length(first_wrong: Callable) -> None:
    """A long vector's small error is none, a short one's counts."""
    _says(first_wrong, None, stream=torch.tensor([[301.0, 400.0], [3.0, 4.0], [0.0, 5.0]]))
    _says(first_wrong, "stream", stream=torch.tensor([[300.0, 400.0], [3.1, 4.0], [0.0, 5.0]]))


def not_a_number(first_wrong: Callable) -> None:
    """NaN is a difference, one number or all."""
    _says(first_wrong, "logits", logits=torch.tensor([[2.0, torch.nan], [0.0, 2.0]]))
    _says(first_wrong, "logits", logits=torch.full((2, 2), torch.nan))


def missing(first_wrong: Callable) -> None:
    """A name that is not there, and a shape that broadcasts."""
    found, expected = _tensors()
    del found["attention"]
    assert first_wrong(found, expected, 0.01) == "attention"
    ones = {"x": torch.ones(3, 2)}
    assert first_wrong({"x": torch.ones(1, 2)}, ones, 0.01) == "x"


def zeros(first_wrong: Callable) -> None:
    """Zero vectors: equal ones agree; others are measured by the median length."""
    expected = {"x": torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])}
    assert first_wrong({"x": expected["x"].clone()}, expected, 0.01) is None
    near, far = expected["x"].clone(), expected["x"].clone()
    near[0, 0], far[0, 0] = 0.005, 0.05
    assert first_wrong({"x": near}, expected, 0.01) is None
    assert first_wrong({"x": far}, expected, 0.01) == "x"
    nothing = {"x": torch.zeros(2, 2)}
    assert first_wrong({"x": torch.zeros(2, 2)}, nothing, 0.01) is None
    assert first_wrong({"x": torch.ones(2, 2)}, nothing, 0.01) == "x"


# 09-4: block(x, w, heads, kv_heads, eps, cos, sin)

SMALL = Qwen2Config(
    vocab_size=8,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=1,
    num_attention_heads=4,
    num_key_value_heads=4,
    rope_theta=100.0,
    dtype="float32",
)


def block_case(
    tokens: int = 1,
    kv_heads: int = 4,
    size: float = 1.0,
    biases: bool = False,
    twins: bool = False,
    turned: bool = False,
) -> Callable:
    """The reader's block equals the package's; what is not asked for cannot matter.

    twins: gate and up are the same matrix. Without `turned` all positions are 0.
    """

    def holds(block: Callable) -> None:
        generator = torch.Generator().manual_seed(3)
        config = replace(SMALL, num_key_value_heads=kv_heads)
        layer = DecoderLayer(config, 0)
        with torch.no_grad():
            for name, each in layer.named_parameters():
                noise = 0.3 * torch.randn(each.shape, generator=generator)
                each.copy_(1 + noise if "norm" in name else noise)
                if name.endswith("bias") and not biases:
                    each.zero_()
            if twins:
                named = dict(layer.named_parameters())
                named["mlp.up_proj.weight"].copy_(named["mlp.gate_proj.weight"])
            weights = {
                ".".join(name.split(".")[-2:]): each.clone()
                for name, each in layer.state_dict().items()
                if biases or not name.endswith("bias")
            }
            x = size * torch.randn(1, tokens, 32, generator=generator)
            positions = torch.arange(tokens)[None] * (1 if turned else 0)
            cos, sin = RotaryEmbedding(config)(positions)
            found = block(x.clone(), weights, 4, kv_heads, 1e-6, cos[0], sin[0])
            # a block adds little to a long stream: what it adds is compared
            expected = layer(x, cos, sin) - x
        assert found.shape == x.shape
        assert distance(found.detach() - x, expected) < 1e-3

    return holds


# 09-6: Mine(config)


def layout_case(name: str) -> Callable:
    """The reader's model takes the weights of a small model, and gives its logits."""

    def holds(kind: Callable) -> None:
        config = layouts()[name]
        model, token_ids = random_model(config), random_ids(config)
        mine = kind(config).eval()
        load_as_from_file(mine, model)
        with torch.no_grad():
            found, expected = mine(token_ids), model(token_ids)
        assert found.shape == expected.shape
        assert distance(found, expected) < 1e-4

    return holds
