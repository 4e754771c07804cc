"""The ten released checkpoints: their sizes and settings, each number once, with its source."""

from typing import Any


def _released() -> dict[str, dict[str, Any]]:
    """Sizes: technical report, table 1. The rest: each checkpoint's own `config.json`.

    The window written in the 57B-A14B-Instruct file could not be confirmed, so none is given; the
    switch is off there as everywhere.
    """
    moe = {"num_experts": 64, "num_experts_per_tok": 8, "moe_intermediate_size": 2560}
    moe["shared_expert_intermediate_size"] = 20_480
    sizes = {  # hidden, feed-forward, layers, query heads, key-value heads, rows, tied
        "0.5B": (896, 4864, 24, 14, 2, 151_936, True),
        "1.5B": (1536, 8960, 28, 12, 2, 151_936, True),
        "7B": (3584, 18_944, 28, 28, 4, 152_064, False),
        "72B": (8192, 29_568, 80, 64, 8, 152_064, False),
        "57B-A14B": (3584, 18_944, 28, 28, 4, 151_936, False),
    }
    instruct_window: dict[str, int | None] = {
        "0.5B": 32_768,
        "1.5B": 32_768,
        "7B": 131_072,
        "72B": 131_072,
    }
    released: dict[str, dict[str, Any]] = {}
    for size, (hidden, inner, layers, heads, kv_heads, rows, tied) in sizes.items():
        base: dict[str, Any] = {
            "vocab_size": rows,
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "tie_word_embeddings": tied,
            "max_position_embeddings": 131_072,
            "sliding_window": 131_072,
            "max_window_layers": layers,
            "bos_token_id": 151_643,
            "eos_token_id": 151_643,
            **(moe if size == "57B-A14B" else {}),
        }
        released[f"Qwen2-{size}"] = base | {"rms_norm_eps": 1e-5 if size == "72B" else 1e-6}
        released[f"Qwen2-{size}-Instruct"] = base | {
            "max_position_embeddings": 32_768,
            "sliding_window": instruct_window.get(size),
            "eos_token_id": 151_643 if size == "57B-A14B" else 151_645,
        }
    return released


RELEASED = _released()
