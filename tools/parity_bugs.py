"""Plant a bug in a layer of the real model, store what differs: `python tools/parity_bugs.py`.

Written to `qwen2_book/widgets/parity_ladder.json` for the figure of chapter 09: for each bug and
each of a few layers, the distance of every tensor of the run from the sound model's, on one text.
Takes two minutes.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from real_model import real_model
from torch import Tensor

from qwen2_book import Qwen2
from qwen2_book.attention import attend
from qwen2_book.parity import distance, record
from qwen2_book.rope import rotate
from qwen2_book.widgets.parity_ladder import PARTS, pack

STORED = Path(__file__).parent.parent / "qwen2_book" / "widgets" / "parity_ladder.json"
PLANTED = (0, 8, 16, 23)  # layers
TEXT = """The lighthouse had seven windows and two lamps. 灯塔有七扇窗，却只有两盏灯。
def share(lamps, windows):
    return [lamps[i % len(lamps)] for i in windows]
"""


def norm_eps(model: Qwen2, layer: int) -> None:
    """0.00001 inside the root of both norms, in place of 0.000001."""
    block: Any = model.model.layers[layer]
    block.input_layernorm.eps = block.post_attention_layernorm.eps = 1e-5


def no_value_bias(model: Qwen2, layer: int) -> None:
    """The values' bias is not added."""
    attention: Any = model.model.layers[layer].self_attn
    linear = attention.v_proj
    linear.forward = lambda x: F.linear(x, linear.weight)


def _attention(model: Qwen2, layer: int, way: Callable[..., Tensor]) -> None:
    block: Any = model.model.layers[layer].self_attn

    def forward(x: Tensor, cos: Tensor, sin: Tensor, mask: Any = None, cache: Any = None) -> Tensor:
        query, key, value = (block._heads(p(x)) for p in (block.q_proj, block.k_proj, block.v_proj))
        return block.o_proj(way(query, key, value, cos, sin).transpose(1, 2).flatten(2))

    block.forward = forward


def tiled_heads(model: Qwen2, layer: int) -> None:
    """Key-value heads 0, 1, 0, 1, … for the query heads, in place of 0, 0, …, 1, 1, …"""

    def way(query, key, value, cos, sin):
        copies = query.shape[1] // key.shape[1]
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        return attend(query, key.repeat(1, copies, 1, 1), value.repeat(1, copies, 1, 1))

    _attention(model, layer, way)


def neighbour_pairs(model: Qwen2, layer: int) -> None:
    """Rotation of dimensions (0, 1), (2, 3), … in place of (0, d/2), (1, d/2 + 1), …"""

    def apart(x):
        return torch.cat((x[..., 0::2], x[..., 1::2]), dim=-1)

    def way(query, key, value, cos, sin):
        return attend(rotate(apart(query), cos, sin), rotate(apart(key), cos, sin), value)

    _attention(model, layer, way)


def one_ahead(model: Qwen2, layer: int) -> None:
    """Every query sees one key too many: the next token's."""

    def way(query, key, value, cos, sin):
        n = query.shape[2]
        mask = torch.ones(n, n, dtype=torch.bool).tril(1)[None, None]
        return attend(rotate(query, cos, sin), rotate(key, cos, sin), value, mask)

    _attention(model, layer, way)


def gate_and_up(model: Qwen2, layer: int) -> None:
    """Gate and up exchanged: SiLU acts on the wrong half."""
    mlp: Any = model.model.layers[layer].mlp
    mlp.forward = lambda x: mlp.down_proj(mlp.gate_proj(x) * F.silu(mlp.up_proj(x)))


def from_one(model: Qwen2, layer: int) -> None:
    """Positions counted from 1: no bug, since only differences of positions count."""

    def way(query, key, value, cos, sin):
        positions = torch.arange(1, query.shape[2] + 1)[None]
        cos, sin = model.model.rotary.forward(positions)  # not called: no hook sees it
        return attend(rotate(query, cos, sin), rotate(key, cos, sin), value)

    _attention(model, layer, way)


def half_products(model: Qwen2, layer: int) -> None:
    """Matrix products in bfloat16: no bug either, but rounding a thousand times as coarse."""
    half = torch.bfloat16

    def rounded(linear: torch.nn.Linear) -> Callable[[Tensor], Tensor]:
        weight = linear.weight.to(half)
        bias = None if linear.bias is None else linear.bias.to(half)
        return lambda x: F.linear(x.to(half), weight, bias).float()

    block: Any = model.model.layers[layer]
    linears: list[Any] = [part for part in block.modules() if isinstance(part, torch.nn.Linear)]
    for linear in linears:
        linear.forward = rounded(linear)


BUGS: dict[str, Callable[[Qwen2, int], None]] = {
    "eps 1e-5": norm_eps,
    "no value bias": no_value_bias,
    "heads tiled": tiled_heads,
    "pairs of neighbours": neighbour_pairs,
    "sees one ahead": one_ahead,
    "gate and up swapped": gate_and_up,
    "positions from 1": from_one,
    "bfloat16 products": half_products,
}


@contextmanager
def planted(model: Qwen2, bug: str, layer: int) -> Iterator[Qwen2]:
    """The model with a bug in one layer; taken out again afterwards."""
    parts = list(model.model.layers[layer].modules())
    before = [dict(part.__dict__) for part in parts]
    try:
        BUGS[bug](model, layer)
        yield model
    finally:
        for part, state in zip(parts, before, strict=True):
            part.__dict__.clear()
            part.__dict__.update(state)


def names(layers: int, first: int = 0) -> list[str]:
    """The tensors that the figure shows, in the order of the run, from a layer on."""
    inside = [f"model.layers.{i}{part}" for i in range(first, layers) for part in PARTS]
    return [*inside, "model.norm", "logits"]


def perplexity(logits: Tensor, ids: Tensor) -> float:
    """exp of the mean cross-entropy of the next tokens."""
    return float(F.cross_entropy(logits[0, :-1], ids[0, 1:]).exp())


def measured(
    model: Qwen2, ids: Tensor, sound: dict[str, Tensor], bug: str, layer: int
) -> dict[str, Any]:
    """What one bug in one layer does: distances from that layer on, tokens, perplexity."""
    with planted(model, bug, layer):
        seen = record(model, ids)
    top = seen["logits"].argmax(-1) != sound["logits"].argmax(-1)
    wanted = names(model.config.num_hidden_layers, layer)
    return {
        "distances": [distance(seen[name], sound[name]) for name in wanted],
        "changed": int(top.sum()),
        "perplexity": round(perplexity(seen["logits"], ids), 3),
    }


def main() -> None:
    model, tokenizer = real_model()
    ids = torch.tensor([tokenizer.encode(TEXT)])
    sound = record(model, ids)
    runs = {}
    for bug in BUGS:
        for layer in PLANTED:
            found = measured(model, ids, sound, bug, layer)
            runs[f"{bug}, {layer}"] = found | {"distances": pack(found["distances"])}
    data = {
        "source": model.name_or_path,
        "command": "python tools/parity_bugs.py",
        "text": TEXT,
        "tokens": ids.shape[1],
        "layers": model.config.num_hidden_layers,
        "planted": list(PLANTED),
        "order": list(BUGS),  # a stored state sorts the keys below
        "bugs": {name: (bug.__doc__ or "").strip() for name, bug in BUGS.items()},
        "perplexity": round(perplexity(sound["logits"], ids), 3),
        "runs": runs,
    }
    STORED.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
