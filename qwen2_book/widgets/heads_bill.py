"""Heads, groups and the cache bill: who reads which key head, and what the cache costs."""

from typing import Any, ClassVar

import traitlets

from qwen2_book import costs
from qwen2_book.config import Qwen2Config
from qwen2_book.widgets.base import Figure, source

SIZES = ("0.5B", "1.5B", "7B", "57B-A14B", "72B")
CARDS = (8, 24, 80)  # GiB


def divisors(heads: int) -> list[int]:
    """The numbers of key-value heads that `heads` query heads can share."""
    return [n for n in range(1, heads + 1) if heads % n == 0]


def _model(size: str) -> dict[str, Any]:
    """What the figure's module needs of a size; every number comes from the configuration."""
    config = Qwen2Config.named(f"Qwen2-{size}")
    kinds = divisors(config.num_attention_heads)
    fixed = costs.parameters(config)["total"]
    return {
        "name": size,
        "layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "dim": config.head_dim,
        "kinds": kinds,
        "released": kinds.index(config.num_key_value_heads),
        # bfloat16 weights without keys and values, and those of one key-value head
        "fixed": 2 * (fixed - config.num_key_value_heads * _one_head(config)),
        "one": 2 * _one_head(config),
    }


def _one_head(config: Qwen2Config) -> int:
    """Parameters of keys and values of one head, over all layers."""
    return 2 * config.num_hidden_layers * config.head_dim * (config.hidden_size + 1)


class HeadsBill(Figure):
    """Which query heads read a key head, and the cache's size over the length of the text.

    size: index into `SIZES`. kv: index into the divisors of the model's query heads (left out: the
    released number). log_length: tokens as a power of two. log_batch: sequences, likewise. picked:
    the key head whose readers are lit. Weights and cache are in bfloat16, no layer has a window.
    """

    MODULE: ClassVar[str] = "heads_bill"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {
        "size": (0, 4),
        "kv": (0, 6),
        "log_length": (10, 17),
        "log_batch": (0, 6),
        "picked": (0, 63),
    }

    _esm = source("heads_bill")
    size = traitlets.Int(2).tag(sync=True)
    kv = traitlets.Int(2).tag(sync=True)
    log_length = traitlets.Int(15).tag(sync=True)
    log_batch = traitlets.Int(0).tag(sync=True)
    picked = traitlets.Int(1).tag(sync=True)
    models: traitlets.List[Any] = traitlets.List().tag(sync=True)
    cards: traitlets.List[Any] = traitlets.List().tag(sync=True)

    def __init__(self, **state: Any) -> None:
        models = [_model(size) for size in SIZES]
        size = state.get("size", 2)
        known = isinstance(size, int) and 0 <= size < len(SIZES)
        state.setdefault("kv", models[size if known else 2]["released"])
        super().__init__(models=models, cards=list(CARDS), **state)

    @property
    def kv_heads(self) -> int:
        """Key-value heads: a divisor of the model's query heads."""
        kinds = self.models[self.size]["kinds"]
        return kinds[min(self.kv, len(kinds) - 1)]

    @property
    def readers(self) -> range:
        """The query heads that read the picked key head."""
        groups = self.models[self.size]["heads"] // self.kv_heads
        head = min(self.picked, self.kv_heads - 1)
        return range(head * groups, (head + 1) * groups)

    def weight_bytes(self) -> int:
        """Bytes of all weights, with this number of key-value heads."""
        model = self.models[self.size]
        return model["fixed"] + self.kv_heads * model["one"]

    def cache_bytes(self) -> int:
        """Bytes of keys and values of all sequences."""
        model = self.models[self.size]
        a_token = 4 * model["layers"] * self.kv_heads * model["dim"]
        return a_token * 2 ** (self.log_length + self.log_batch)

    def fitting(self) -> str:
        """The smallest of the cards that holds weights and cache together."""
        need = (self.weight_bytes() + self.cache_bytes()) / 2**30
        card = next((card for card in CARDS if need <= card), None)
        return f"fits a card of {card} GiB" if card else f"more than a card of {CARDS[-1]} GiB"

    def description(self) -> str:
        readers = self.readers
        return (
            f"Left, {self.models[self.size]['heads']} query heads of Qwen2-{SIZES[self.size]} over "
            f"{self.kv_heads} key-value heads; one is lit, with query heads {readers[0]} to "
            f"{readers[-1]}, which read it. Right, the size of the cache against the length of the "
            f"text for one key-value head, for {self.kv_heads} and for one each, with lines for "
            f"cards of 8, 24 and 80 GiB; at {2**self.log_length:,} tokens it is "
            f"{self.cache_bytes() / 2**30:.2f} GiB."
        )
