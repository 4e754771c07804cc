"""The same model, faster: fewer calls, and weights as kernels read them or in 8 or 4 bits.

Decoding waits for weights to arrive from memory, so it reads packed ones; a prompt is many rows at
once and waits for arithmetic, so it takes the wide ones, which stay where the checkpoint lies.
"""

import copy
import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, NoReturn

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from qwen2_book.cache import KVCache
from qwen2_book.errors import CheckpointError
from qwen2_book.feedforward import SwiGLU
from qwen2_book.fused import Fuse, FusedAttention, FusedNorm, FusedRotary, FusedSwiGLU
from qwen2_book.model import DecoderLayer, Masks, Qwen2
from qwen2_book.packed import FusedLinear, frozen, pack
from qwen2_book.progress import shown
from qwen2_book.rounding import GROUPS
from qwen2_book.window import Band

WIDE, PACKED = ("float32", "bfloat16"), ("int8", "int4")
PARTS = ("attention", "feed_forward", "head")


class FastQwen2(Qwen2):
    """A Qwen2 made by `optimize`: same calls, same cache; no gradients, no saving, no moving."""

    def hidden_states(self, *args: Any) -> Float[Tensor, "batch seq hidden"]:
        """As `Qwen2` has it, without any of autograd's bookkeeping (`torch.compile` has none)."""
        with nullcontext() if torch.compiler.is_compiling() else torch.inference_mode():
            return super().hidden_states(*args)

    def positions_and_masks(
        self, token_ids: Tensor, cache: KVCache | None, attention_mask: Tensor | None
    ) -> tuple[Int[Tensor, "#batch seq"], Masks]:
        """As `Qwen2` has it; of an unpadded text from its beginning, no mask as large as n^2."""
        begun = cache is not None and cache.length > 0
        if begun or not (attention_mask is None or bool(attention_mask.all())):
            return super().positions_and_masks(token_ids, cache, attention_mask)
        length, sinks = token_ids.shape[1], self.config.sink_tokens
        positions = torch.arange(length, device=token_ids.device)[None]
        if cache is not None:
            cache.append(positions)
        windows = set(self.config.layer_windows)
        return positions, {w: Band(w, sinks) if w and w < length else None for w in windows}

    def state_dict(self, *args, **kwargs) -> NoReturn:
        raise CheckpointError(
            "an optimised model has no checkpoint tensors, its matrices are fused or packed. Save, "
            "cut or adapt the model that it was made from, and optimise the result."
        )

    def load_state_dict(self, *args, **kwargs) -> NoReturn:
        self.state_dict()

    def tie_weights(self) -> None:
        """Nothing to do: `optimize` has tied them."""

    def _apply(self, fn, recurse=True):
        before = self.model.norm.weight
        if (after := fn(before)).device != before.device or after.dtype != before.dtype:
            raise ValueError(
                f"an optimised model stays on {before.device} in {before.dtype}: move or convert "
                "the model that it was made from, and optimise the result."
            )
        return self


@torch.no_grad()
def optimize(
    model: Qwen2,
    weights: str = "bfloat16",
    group: int = 32,
    int8_parts: Sequence[str] = ("head",),
) -> FastQwen2:
    """The same model, to be run only: projections fused, matrices in float32, bfloat16, int8, int4.

    int8 rounds by rows, int4 by `group` neighbours of a row (32 to 256). Both are for passes of few
    rows, as in decoding: at most 16, or 64 where whole numbers are multiplied (large int8 matrices
    on x86 without AMX). Larger passes (of an expert: larger shares) read the wide weights, which
    are shared with `model`, not copied: they stay mapped where `load` mapped them. `int8_parts`
    names what int4 leaves in int8, out of attention, feed_forward and head: the head is the most
    sensitive. Embedding, norms and routers stay wide. Rows of no multiple of 32 weights get int8;
    small matrices with rows of no multiple of 16 stay wide.

    Packed weights run on the CPU only; float32 and bfloat16 stay where the model is (on a GPU that
    has not been tried). Raises ValueError for another device, for names that are not known, and for
    models that are optimised, adapted or have dual chunk attention.
    """
    _check(model, weights, group, int8_parts)
    dtype = getattr(torch, weights) if weights in WIDE else model.dtype
    wide = partial(FusedLinear, dtype=dtype)
    fuse: dict[str, Fuse] = dict.fromkeys(PARTS, wide)
    if weights in PACKED:
        kinds = {part: "int8" if part in int8_parts else weights for part in PARTS}
        fuse = {part: partial(pack, kind=kind, group=group) for part, kind in kinds.items()}
    fast = _twin(model, FastQwen2)
    decoder = fast.model = _twin(model.model)
    embedding = frozen(model.model.embed_tokens.weight, dtype)
    decoder.embed_tokens = nn.Embedding.from_pretrained(embedding)
    decoder.norm = FusedNorm(model.model.norm, dtype)
    decoder.rotary = FusedRotary(model.model.rotary)
    size = sum(p.numel() for p in model.model.layers.parameters()) * (weights in PACKED)
    layers = shown(model.model.layers, len(model.model.layers), f"packing into {weights}", size)
    decoder.layers = nn.ModuleList(_layer(layer, fuse, wide, dtype) for layer in layers)
    output = _twin(model.lm_head)
    if model.config.tie_word_embeddings:
        output.weight = decoder.embed_tokens.weight
    fast.lm_head = fuse["head"](output)
    fast.config = dataclasses.replace(model.config, dtype=str(dtype).removeprefix("torch."))
    return fast


def _layer(plain: nn.Module, fuse: dict[str, Fuse], wide: Fuse, dtype: torch.dtype) -> DecoderLayer:
    """A decoder layer of fused parts; a router and a shared expert's gate stay wide."""
    assert isinstance(plain, DecoderLayer)
    layer = _twin(plain)
    layer.input_layernorm = FusedNorm(plain.input_layernorm, dtype)
    layer.post_attention_layernorm = FusedNorm(plain.post_attention_layernorm, dtype)
    layer.self_attn = FusedAttention(plain.self_attn, fuse["attention"])
    pair = partial(FusedSwiGLU, fuse=fuse["feed_forward"])
    if isinstance(plain.mlp, SwiGLU):
        layer.mlp = pair(plain.mlp)
        return layer
    sparse = layer.mlp = _twin(plain.mlp)
    sparse.gate, sparse.shared_expert_gate = wide(sparse.gate), wide(sparse.shared_expert_gate)
    sparse.experts = nn.ModuleList(map(pair, sparse.experts))
    sparse.shared_expert = pair(sparse.shared_expert)
    return layer


def _check(model: Qwen2, weights: str, group: int, int8_parts: Sequence[str]) -> None:
    if weights not in (*WIDE, *PACKED):
        expected = ", ".join((*WIDE, *PACKED))
        raise ValueError(f"optimize: weights: found {weights!r}, expected one of {expected}.")
    if group not in GROUPS:
        raise ValueError(f"optimize: group: found {group!r}, expected one of {GROUPS}.")
    if isinstance(int8_parts, str) or not set(int8_parts) <= set(PARTS):
        raise ValueError(f"optimize: int8_parts: found {int8_parts!r}, expected some of {PARTS}.")
    if type(model) is not Qwen2:
        raise ValueError(
            f"optimize: found a {type(model).__name__}, expected a Qwen2 as `load` gives it. An "
            "optimised model cannot be optimised again, nor one with dual chunk attention at all."
        )
    matrices = [(n, part) for n, part in model.named_modules() if isinstance(part, nn.Linear)]
    for name, part in matrices:
        if type(part) is not nn.Linear:
            raise ValueError(
                f"optimize: {name} is a {type(part).__name__}, expected a plain linear layer. "
                "Merge adapters first: merge_lora(model)."
            )
    if weights in PACKED and model.device.type != "cpu":
        raise ValueError(
            f"optimize: the packed kernels run on the CPU, the model is on {model.device}. Use "
            "weights='bfloat16' there, or load with device='cpu'."
        )


def _twin(module: nn.Module, kind: Any = None) -> Any:
    """A module with the same parts, of which some can be exchanged without touching the first."""
    kind = kind or type(module)
    new = kind.__new__(kind)
    kept = vars(module).items()
    new.__dict__ = {n: copy.copy(v) if isinstance(v, dict) else v for n, v in kept}
    return new
