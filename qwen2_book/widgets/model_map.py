"""The map of the model: one prompt on its way through every door, with its shape there."""

from typing import Any, ClassVar

import traitlets

from qwen2_book.config import Qwen2Config
from qwen2_book.widgets.base import Figure, source

SIZES = ("0.5B", "1.5B", "7B", "57B-A14B", "72B")
DOORS = (
    "text",
    "token ids",
    "embeddings",
    "a normalised copy",
    "queries, keys, values",
    "attention weights",
    "after attention",
    "inside the feed-forward layer",
    "after all blocks",
    "after the final norm",
    "logits",
    "probabilities",
    "the next token",
)


def sizes() -> list[dict[str, Any]]:
    """The numbers that the drawing needs of each released size."""
    found = []
    for name in SIZES:
        c = Qwen2Config.named(f"Qwen2-{name}")
        found.append(
            {
                "name": name,
                "hidden": c.hidden_size,
                "layers": c.num_hidden_layers,
                "heads": c.num_attention_heads,
                "kv_heads": c.num_key_value_heads,
                "head_dim": c.head_dim,
                "inner": c.moe_intermediate_size or c.intermediate_size,
                "rows": c.vocab_size,
                "tied": c.tie_word_embeddings,
                "experts": c.num_experts,
                "chosen": c.num_experts_per_tok,
                "shared": c.shared_expert_intermediate_size,
            }
        )
    return found


class ModelMap(Figure):
    """Qwen2 as a house with doors: causal attention, bias on q, k and v, norms on the side roads.

    door: where the prompt is now, see `DOORS`. size: which of `SIZES`. tokens: the prompt's length.
    Boxes are links where the page around has a link to their chapter.
    """

    MODULE: ClassVar[str] = "model_map"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {
        "door": (0, len(DOORS) - 1),
        "tokens": (1, 64),
        "size": (0, len(SIZES) - 1),
    }

    _esm = source("model_map")
    data: Any = traitlets.List().tag(sync=True)
    door = traitlets.Int(4).tag(sync=True)
    tokens = traitlets.Int(5).tag(sync=True)
    size = traitlets.Int(0).tag(sync=True)

    def __init__(self, **state: Any) -> None:
        super().__init__(data=sizes(), **state)

    def shapes(self) -> list[tuple[int, ...]]:
        """What passes the door; an empty list for text. One row of `batch`, as on paper."""
        c, n = self.data[self.size], self.tokens
        stream: list[tuple[int, ...]] = [(1, n, c["hidden"])]
        key = (1, c["kv_heads"], n, c["head_dim"])
        inside: list[tuple[int, ...]] = [(1, n, c["inner"])]
        if c["experts"]:
            inside = [(n * c["chosen"], c["inner"]), (1, n, c["shared"])]
        shapes: list[list[tuple[int, ...]]] = [
            [],
            [(1, n)],
            stream,
            stream,
            [(1, c["heads"], n, c["head_dim"]), key, key],
            [(1, c["heads"], n, n)],
            stream,
            inside,
            stream,
            stream,
            [(1, n, c["rows"])],
            [(c["rows"],)],
            [(1, 1)],
        ]
        return shapes[self.door]

    def description(self) -> str:
        c = self.data[self.size]
        what = " and ".join(str(shape) for shape in self.shapes()) or "text"
        head = "the embedding matrix again" if c["tied"] else "a matrix of its own"
        return (
            f"The way of a prompt through Qwen2-{c['name']}: text, tokenizer, embedding, "
            f"{c['layers']} decoder blocks, final norm, head ({head}), sampler, next token. Each "
            "block adds causal attention and a feed-forward part to the residual stream, each "
            "behind a norm; queries, keys and values have a bias. "
            f"Door {self.door}, {DOORS[self.door]}: {what}."
        )
