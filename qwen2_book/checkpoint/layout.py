"""Which tensors a configuration's checkpoint holds: names and shapes, before anything is built."""

from collections.abc import Iterator, Mapping

from qwen2_book.config import Qwen2Config
from qwen2_book.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]


def shapes(config: Qwen2Config) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor on disk; a tied head is not there: it is the embedding."""
    hidden, rows = config.hidden_size, config.vocab_size
    found = {"model.embed_tokens.weight": (rows, hidden), "model.norm.weight": (hidden,)}
    if not config.tie_word_embeddings:
        found["lm_head.weight"] = (rows, hidden)
    for layer in range(config.num_hidden_layers):
        for name, shape in _layer(config, layer):
            found[f"model.layers.{layer}.{name}.weight"] = shape
        for name, heads in _biases(config):
            found[f"model.layers.{layer}.self_attn.{name}.bias"] = (heads,)
    return found


def _biases(config: Qwen2Config) -> list[tuple[str, int]]:
    query = config.num_attention_heads * config.head_dim
    key_value = config.num_key_value_heads * config.head_dim
    return [("q_proj", query), ("k_proj", key_value), ("v_proj", key_value)]


def _layer(config: Qwen2Config, layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden = config.hidden_size
    yield "input_layernorm", (hidden,)
    yield "post_attention_layernorm", (hidden,)
    for name, heads in _biases(config):
        yield f"self_attn.{name}", (heads, hidden)
    yield "self_attn.o_proj", (hidden, config.num_attention_heads * config.head_dim)
    if not config.is_sparse(layer):
        yield from _swiglu("mlp", hidden, config.intermediate_size)
        return
    yield "mlp.gate", (config.num_experts, hidden)
    for expert in range(config.num_experts):
        yield from _swiglu(f"mlp.experts.{expert}", hidden, config.moe_intermediate_size)
    yield from _swiglu("mlp.shared_expert", hidden, config.shared_expert_intermediate_size)
    yield "mlp.shared_expert_gate", (1, hidden)


def _swiglu(name: str, hidden: int, inner: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.gate_proj", (inner, hidden)
    yield f"{name}.up_proj", (inner, hidden)
    yield f"{name}.down_proj", (hidden, inner)


def check(found: Shapes, config: Qwen2Config, where: str) -> None:
    """Raise CheckpointError unless `found` is what the configuration needs, and says what differs.

    Old files also hold rotary frequencies, or the tied head a second time: neither is needed.
    """
    expected = shapes(config)
    ignored = {name for name in found if name.endswith("rotary_emb.inv_freq")}
    if config.tie_word_embeddings:
        ignored.add("lm_head.weight")
    missing = sorted(expected.keys() - found.keys())
    extra = sorted(found.keys() - expected.keys() - ignored)
    expected.setdefault("lm_head.weight", expected["model.embed_tokens.weight"])
    wrong = [name for name in expected if name in found and found[name] != expected[name]]
    problems = [
        f"{len(names)} tensors {what}, the first {names[0]!r:.120}"
        for what, names in (("missing", missing), ("unexpected", extra))
        if names
    ]
    problems += [f"{n}: found shape {found[n]}, expected {expected[n]}" for n in wrong[:3]]
    if problems:
        raise CheckpointError(
            f"{where}: {'; '.join(problems)}. Do config.json and the weights belong together?"
        )
