"""Tensors that lie in a file: what is known of each before reading, and how they are read."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qwen2_book.checkpoint.files import FETCH_AGAIN, MappedFile
from qwen2_book.config import Qwen2Config
from qwen2_book.errors import CheckpointError

PLAIN = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
CHUNK = 1 << 20  # numbers dequantised at a time, per thread
SHOW_FROM = 1 << 27  # bytes to convert from which on a progress bar is shown


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its shape, its kind (`BF16`, `Q4_K` …) and where its bytes are."""

    shape: tuple[int, ...]
    kind: str
    file: MappedFile
    start: int
    end: int

    def read(self, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The tensor in this dtype on this device: the mapped memory itself if both agree."""
        if self.kind in PLAIN:
            mapped = self.file.view(self.start, self.end, PLAIN[self.kind]).view(self.shape)
            tensor = mapped.to(device=device, dtype=dtype)
            copied = tensor is not mapped
        else:
            tensor, copied = dequantised(self, dtype).to(device), True
        if copied:
            self.file.release(self.start, self.end)
        return tensor


def dequantised(stored: Stored, dtype: torch.dtype) -> Tensor:
    """The numbers of a quantised tensor by the `gguf` library, a few rows at a time."""
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    *_, width = stored.shape
    count = stored.end - stored.start
    packed = np.frombuffer(stored.file.bytes, np.uint8, count, stored.start)
    packed = packed.reshape(math.prod(stored.shape) // width, -1)
    result = torch.empty(stored.shape, dtype=dtype)
    rows, step = result.view(-1, width), max(1, CHUNK // width)
    kind = GGMLQuantizationType[stored.kind]

    def fill(first: int) -> None:
        with np.errstate(all="ignore"):
            numbers = dequantize(packed[first : first + step], kind)
        rows[first : first + step] = torch.from_numpy(numbers)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(fill, range(0, len(rows), step)))
    return result


def read_all(
    tensors: Mapping[str, Stored], dtype: torch.dtype, device: torch.device
) -> dict[str, Tensor]:
    """Every tensor, one after the other, so that at most one exists twice."""
    slow = sum(
        math.prod(stored.shape) * dtype.itemsize
        for stored in tensors.values()
        if device.type != "cpu" or PLAIN.get(stored.kind) != dtype
    )
    names = list(tensors)
    steps = _with_progress(names) if slow >= SHOW_FROM else names
    return {name: tensors[name].read(dtype, device) for name in steps}


def _with_progress(names: list[str]) -> Iterator[str]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    silent = not (console.is_terminal or console.is_jupyter)
    yield from track(names, "reading weights", console=console, transient=True, disable=silent)


def expected_shapes(config: Qwen2Config) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a checkpoint; nn.Linear stores (outputs, inputs).

    Names are those of the released checkpoints; a tied head has no tensor of its own.
    """
    assert config.head_dim is not None
    hidden, rows = config.hidden_size, config.vocab_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (rows, hidden)}
    for layer in range(config.num_hidden_layers):
        attention = {
            **{"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)},
            **{"self_attn.q_proj.weight": (queries, hidden), "self_attn.q_proj.bias": (queries,)},
            **{"self_attn.k_proj.weight": (keys, hidden), "self_attn.k_proj.bias": (keys,)},
            **{"self_attn.v_proj.weight": (keys, hidden), "self_attn.v_proj.bias": (keys,)},
            **{"self_attn.o_proj.weight": (hidden, queries)},
        }
        parts = attention | _feed_forward_shapes(config, layer)
        shapes |= {f"model.layers.{layer}.{name}": shape for name, shape in parts.items()}
    shapes["model.norm.weight"] = (hidden,)
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (rows, hidden)
    return shapes


def _feed_forward_shapes(config: Qwen2Config, layer: int) -> dict[str, tuple[int, ...]]:
    hidden = config.hidden_size
    if not config.is_sparse(layer):
        return _swiglu_shapes("mlp", hidden, config.intermediate_size)
    shapes: dict[str, tuple[int, ...]] = {"mlp.gate.weight": (config.num_experts, hidden)}
    for expert in range(config.num_experts):
        shapes |= _swiglu_shapes(f"mlp.experts.{expert}", hidden, config.moe_intermediate_size)
    shared = config.shared_expert_intermediate_size
    shapes |= _swiglu_shapes("mlp.shared_expert", hidden, shared)
    return shapes | {"mlp.shared_expert_gate.weight": (1, hidden)}


def _swiglu_shapes(name: str, hidden: int, inner: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.gate_proj.weight": (inner, hidden),
        f"{name}.up_proj.weight": (inner, hidden),
        f"{name}.down_proj.weight": (hidden, inner),
    }


def matched(
    found: Mapping[str, Stored], config: Qwen2Config, source: Path
) -> dict[str, Stored]:
    """The tensors that the configuration asks for; CheckpointError where any differs.

    Rotary frequencies, which old files hold, are left out: they follow from the configuration. So
    is a head of its own where the configuration ties it to the embedding.
    """
    expected = expected_shapes(config)
    optional = {"lm_head.weight": (config.vocab_size, config.hidden_size)}
    wanted = {name: found[name] for name in expected if name in found}
    extra = [
        name
        for name in found
        if name not in expected and name not in optional and not name.endswith(".inv_freq")
    ]
    shapes = optional | expected
    wrong = [
        f"{name} {found[name].shape} instead of {shape}"
        for name, shape in shapes.items()
        if name in found and found[name].shape != shape
    ]
    missing = [name for name in expected if name not in found]
    groups = {"missing": missing, "not expected": extra, "of another shape": wrong}
    faults = [f"{len(names):,} {kind} ({_some(names)})" for kind, names in groups.items() if names]
    if faults:
        raise CheckpointError(
            f"{source}: of {len(expected):,} tensors expected, {len(found):,} found: "
            f"{'; '.join(faults)}. Configuration and weights do not belong together, or a file is "
            f"not whole. {FETCH_AGAIN}"
        )
    return wanted


def _some(names: Iterable[str], most: int = 3) -> str:
    listed = [f"{name:.120}" for name in names]
    return ", ".join(listed[:most]) + (", …" if len(listed) > most else "")
