"""What a configuration must satisfy; generous bounds keep absurd files from doing harm."""

import json
import stat
from pathlib import Path
from typing import Any

from qwen2_book.errors import ConfigError

FULL, SLIDING = "full_attention", "sliding_attention"
DTYPES = ("float32", "bfloat16", "float16")


def read_json(file: Path, error: type[ValueError], limit: int = 64 << 20) -> Any:
    """The JSON value in a file; whatever is wrong with it ends in `error`, naming the file."""
    try:
        if not stat.S_ISREG((status := file.stat()).st_mode):
            raise error(f"{file} is no regular file.")
        if (size := status.st_size) > limit:
            raise error(f"{file}: {size:,} bytes, expected at most {limit:,}.")
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        raise error(f"{file} is not there; expected a checkpoint folder's {file.name}.") from None
    except (OSError, ValueError, RecursionError, MemoryError) as problem:
        if isinstance(problem, error):
            raise
        raise error(f"{file} is not readable JSON ({problem}); fetch it again.") from None


def found(name: str, value: Any, expected: str) -> ConfigError:
    """The error that says what a field holds and what it should."""
    return ConfigError(f"{name}: found {value!r:.80}, expected {expected}.")


def integer(config: Any, name: str, low: int, high: int) -> None:
    """Refuse a field that is not an integer in these bounds."""
    value = getattr(config, name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise found(name, value, f"an integer from {low:,} to {high:,}")


def number(config: Any, name: str, low: float, high: float) -> None:
    """Refuse a field that is not a finite number in these bounds; make it a float."""
    value = getattr(config, name)
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not low <= value <= high:  # NaN is refused, too
        raise found(name, value, f"a number from {low:g} to {high:g}")
    object.__setattr__(config, name, float(value))


def check(config: Any) -> None:
    """Refuse what is not a Qwen2; the bounds are generous, and keep absurd files from harm."""
    for name in ("hidden_size", "intermediate_size"):
        integer(config, name, 1, 1 << 20)
    integer(config, "vocab_size", 1, 1 << 22)
    integer(config, "num_hidden_layers", 1, 1024)
    for name in ("num_attention_heads", "num_key_value_heads"):
        integer(config, name, 1, 4096)
    if config.num_attention_heads % config.num_key_value_heads:
        expected = f"a divisor of num_attention_heads ({config.num_attention_heads})"
        raise found("num_key_value_heads", config.num_key_value_heads, expected)
    if not config.head_dim:
        if config.hidden_size % config.num_attention_heads:
            expected = f"a multiple of num_attention_heads ({config.num_attention_heads})"
            raise found("hidden_size", config.hidden_size, expected)
        head_dim = config.hidden_size // config.num_attention_heads
        object.__setattr__(config, "head_dim", head_dim)
    integer(config, "head_dim", 1, 1 << 14)
    if config.head_dim % 2:
        raise found("head_dim", config.head_dim, "an even number, since rotation works on pairs")
    integer(config, "max_position_embeddings", 1, 1 << 26)
    number(config, "rope_theta", 1.0 + 1e-6, 1e15)
    number(config, "rms_norm_eps", 0.0, 1.0)
    number(config, "initializer_range", 0.0, 10.0)
    for name in ("tie_word_embeddings", "use_sliding_window", "norm_topk_prob"):
        if not isinstance(value := getattr(config, name), bool):
            raise found(name, value, "true or false")
    if config.dtype not in DTYPES:
        raise found("dtype", config.dtype, f"one of {', '.join(DTYPES)}")
    _check_window(config)
    _check_experts(config)
    _check_ids(config)


def _check_window(config: Any) -> None:
    if config.sliding_window is not None or config.use_sliding_window:
        integer(config, "sliding_window", 0 if not config.use_sliding_window else 1, 1 << 26)
    integer(config, "max_window_layers", 0, 1 << 20)  # above the number of layers is legal
    integer(config, "sink_tokens", 0, 1 << 26)
    if config.layer_types is not None:
        types, layers = config.layer_types, config.num_hidden_layers
        if (
            not isinstance(types, tuple)
            or len(types) != layers
            or {*map(str, types)}
            - {
                FULL,
                SLIDING,
            }
        ):
            raise found("layer_types", types, f"{layers} times {FULL!r} or {SLIDING!r}")


def _check_experts(config: Any) -> None:
    integer(config, "num_experts", 0, 4096)
    if not config.num_experts:
        return
    integer(config, "num_experts_per_tok", 1, config.num_experts)
    for name in ("moe_intermediate_size", "shared_expert_intermediate_size"):
        integer(config, name, 1, 1 << 20)
    integer(config, "decoder_sparse_step", 1, 1 << 20)
    number(config, "router_aux_loss_coef", 0.0, 1e6)
    if config.num_experts * config.num_hidden_layers > 16_384:
        raise found("num_experts", config.num_experts, "at most 16,384 experts in all layers")
    layers = config.mlp_only_layers
    if not isinstance(layers, tuple) or not all(type(layer) is int for layer in layers):
        raise found("mlp_only_layers", layers, "a list of layer numbers")


def _check_ids(config: Any) -> None:
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = getattr(config, name)
        ids = value if isinstance(value, tuple) else () if value is None else (value,)
        if not all(type(i) is int and 0 <= i < 1 << 32 for i in ids):
            raise found(name, value, "a token id or null")
