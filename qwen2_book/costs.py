"""What a model costs, computed from its configuration alone: parameters, bytes, operations."""

from qwen2_book.cache import ROLLBACK
from qwen2_book.config import Qwen2Config
from qwen2_book.window import count_pairs

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def parameters(config: Qwen2Config) -> dict[str, int]:
    """Parameters by part. `active` are those that one token runs through; tied heads count once."""
    hidden, layers, dim = config.hidden_size, config.num_hidden_layers, config.head_dim
    query, key_value = config.num_attention_heads * dim, config.num_key_value_heads * dim
    attention = (query + 2 * key_value) * (hidden + 1) + query * hidden
    embedding = config.vocab_size * hidden
    sparse = sum(config.is_sparse(layer) for layer in range(layers))
    expert = 3 * hidden * config.moe_intermediate_size
    shared = 3 * hidden * config.shared_expert_intermediate_size
    router = config.num_experts * hidden + hidden  # and the shared expert's gate
    dense = (layers - sparse) * 3 * hidden * config.intermediate_size
    feed_forward = dense + sparse * (config.num_experts * expert + shared + router)
    active = dense + sparse * (config.num_experts_per_tok * expert + shared + router)
    counts = {
        "embedding": embedding,
        "attention": layers * attention,
        "feed_forward": feed_forward,
        "norm": (2 * layers + 1) * hidden,
        "head": 0 if config.tie_word_embeddings else embedding,
    }
    total = sum(counts.values())
    both = counts["embedding"] + counts["head"]
    idle = feed_forward - active
    return counts | {
        "total": total,
        "non_embedding": total - both,
        "active": total - idle,
        "active_non_embedding": total - both - idle,
    }


def weight_bytes(config: Qwen2Config, dtype: str = "bfloat16") -> int:
    """Bytes of all weights."""
    return parameters(config)["total"] * BYTES[dtype]


def cache_bytes(
    config: Qwen2Config, length: int, dtype: str = "bfloat16", batch: int = 1, ring: bool = True
) -> int:
    """Bytes of keys and values for `length` tokens; equal to `KVCache(...).nbytes`."""
    per_token = 2 * config.num_key_value_heads * config.head_dim * BYTES[dtype]
    kept = [
        window + ROLLBACK + config.sink_tokens
        if window and ring and window + ROLLBACK < length
        else length
        for window in config.layer_windows
    ]
    return batch * per_token * sum(kept)


def matmul_flops(config: Qwen2Config) -> int:
    """Operations of one token in all weight matrices: 2 a weight, the head included."""
    counts = parameters(config)
    biases = config.num_attention_heads + 2 * config.num_key_value_heads
    biases *= config.num_hidden_layers * config.head_dim
    head = config.vocab_size * config.hidden_size
    return 2 * (counts["active_non_embedding"] - counts["norm"] - biases + head)


def attention_flops(config: Qwen2Config, length: int) -> int:
    """Operations of scores and weighted sums over a whole prompt: 4 head_dim a pair and head."""
    per_pair = 4 * config.num_attention_heads * config.head_dim
    pairs = (count_pairs(length, w, config.sink_tokens) for w in config.layer_windows)
    return per_pair * sum(pairs)


def prefill_flops(config: Qwen2Config, length: int) -> int:
    """Operations to take in a prompt of `length` tokens, the head applied to every one."""
    return length * matmul_flops(config) + attention_flops(config, length)


def activation_numbers(config: Qwen2Config) -> int:
    """Numbers a token that training keeps for the backward pass, with attention in one kernel.

    A norm keeps its input, the scale, the scaled vector and its output; attention keeps queries,
    keys, values, its result twice (by heads and flat) and one number a head; a SwiGLU of width F
    keeps 4 F. An expert also keeps its input, its output and its weighted output, the router its
    probabilities. Cosines and sines are kept once, and the loss keeps log-probabilities.
    """
    hidden, dim = config.hidden_size, config.head_dim
    query, key_value = config.num_attention_heads * dim, config.num_key_value_heads * dim
    attention = 3 * query + 2 * key_value + config.num_attention_heads
    total = 3 * hidden + 1 + config.vocab_size + dim
    for layer in range(config.num_hidden_layers):
        feed_forward = 4 * config.intermediate_size
        if config.is_sparse(layer):
            expert = 3 * hidden + 4 * config.moe_intermediate_size + 1
            shared = 4 * config.shared_expert_intermediate_size + hidden + 1
            feed_forward = config.num_experts_per_tok * expert + shared + config.num_experts
        total += 2 * (3 * hidden + 1) + attention + feed_forward
    return total


def training_bytes(config: Qwen2Config, length: int, batch: int = 1) -> dict[str, int]:
    """Bytes that a training step in float32 holds: four numbers a parameter, and activations."""
    weights = weight_bytes(config, "float32")
    activations = BYTES["float32"] * batch * length * activation_numbers(config)
    return {
        "weights": weights,
        "gradients": weights,
        "optimizer": 2 * weights,  # Adam's two moments
        "activations": activations,
    }
