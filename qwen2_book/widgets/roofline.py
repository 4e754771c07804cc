"""The roofline: what memory and arithmetic of a machine allow, and what was measured below it."""

import json
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import traitlets

from qwen2_book import costs
from qwen2_book.config import Qwen2Config
from qwen2_book.widgets.base import Figure, source

SIZES = ("0.5B", "1.5B", "7B", "72B")
WEIGHTS = ("float32", "bfloat16", "int8", "int4")
PARTS = ("attention", "feed_forward", "head")
STORED = Path(__file__).with_suffix(".json")
# Bytes a weight: a packed row has a scale (2 bytes) for its weights, counted as 896 of them; a
# group of 32 has a scale and a zero. int4 leaves the head in int8.
INT8, INT4 = 1 + 2 / 896, 0.5 + 4 / 32
BYTES: dict[str, tuple[float, float, float]] = {
    "float32": (4, 4, 4),
    "bfloat16": (2, 2, 2),
    "int8": (INT8, INT8, INT8),
    "int4": (INT4, INT4, INT8),
}


@cache
def stored() -> dict[str, Any]:
    """The machine's limits, its kernels' own, and what was measured (tools/roofline_data.py)."""
    return json.loads(STORED.read_text(encoding="utf-8"))


def model_of(size: str) -> dict[str, Any]:
    """What the figure needs of a size: weights by part, and the bill of a token's attention."""
    config = Qwen2Config.named(f"Qwen2-{size}")
    counts = costs.parameters(config)
    head = config.vocab_size * config.hidden_size
    kept = config.num_attention_heads + 2 * config.num_key_value_heads
    biases = kept * config.head_dim * config.num_hidden_layers
    return {
        "name": size,
        "parts": [counts["attention"] - biases, counts["feed_forward"], head],
        "pair": 4 * config.num_attention_heads * config.head_dim * config.num_hidden_layers,
        "cached": 2 * config.num_key_value_heads * config.head_dim * config.num_hidden_layers,
    }


class Roofline(Figure):
    """One pass of a model on a machine: its operations, its bytes, and which of them it waits for.

    size, weights: indexes into `SIZES` and `WEIGHTS`. prefill: 1 for a prompt of 2**log_tokens
    tokens, 0 for one token over so many cached ones. log_batch: texts at once. Bytes are those of
    all matrices once, and of keys and values once; what a layer hands to the next stays in the
    processor. Passes of few rows have their kernels' ceilings; packed weights serve no others.
    `bandwidth` (bytes a second) and `speed` (operations a second, in all formats) may be given for
    another machine, whose kernels then have no ceiling of their own and nothing measured.
    """

    MODULE: ClassVar[str] = "roofline"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {
        "size": (0, 3),
        "weights": (0, 3),
        "prefill": (0, 1),
        "log_batch": (0, 6),
        "log_tokens": (4, 15),
    }

    _esm = source("roofline")
    size = traitlets.Int(0).tag(sync=True)
    weights = traitlets.Int(1).tag(sync=True)
    prefill = traitlets.Int(0).tag(sync=True)
    log_batch = traitlets.Int(0).tag(sync=True)
    log_tokens = traitlets.Int(7).tag(sync=True)
    data = traitlets.Dict().tag(sync=True)

    def __init__(
        self, bandwidth: float | None = None, speed: float | None = None, **state: Any
    ) -> None:
        found = dict(stored())
        if bandwidth is not None or speed is not None:
            if not (bandwidth and speed and bandwidth > 0 and speed > 0):
                raise ValueError("Roofline: give both bandwidth and speed, both above 0.")
            found |= {"bandwidth": bandwidth, "speeds": [speed] * len(WEIGHTS), "points": []}
            own = found["ceilings"].items()
            found["ceilings"] = {name: [speed] * len(ceilings) for name, ceilings in own}
        found |= {
            "models": [model_of(size) for size in SIZES],
            "bytes": [BYTES[name] for name in WEIGHTS],
            "names": list(WEIGHTS),
        }
        super().__init__(data=found, **state)

    @property
    def batch(self) -> int:
        return 2**self.log_batch

    @property
    def tokens(self) -> int:
        return 2**self.log_tokens

    @property
    def new(self) -> int:
        """Tokens of a text that go through the model in this pass."""
        return self.tokens if self.prefill else 1

    @property
    def read(self) -> int:
        """The kind of weights that the pass reads: packed ones serve a few rows only."""
        return self.weights if self.ceiling() else min(self.weights, 1)

    @property
    def _model(self) -> dict[str, Any]:
        return self.data["models"][self.size]

    def matrix_operations(self) -> int:
        """Two a weight and row; the head works on each text's last row only."""
        attention, feed_forward, head = self._model["parts"]
        return 2 * self.batch * (self.new * (attention + feed_forward) + head)

    def attention_operations(self) -> int:
        """Scores and weighted sums of all pairs that are seen, over all heads and layers."""
        n = self.tokens
        pairs = n * (n + 1) // 2 if self.prefill else n + 1
        return self.batch * pairs * self._model["pair"]

    def weight_bytes(self) -> float:
        """All matrices, once."""
        each = self.data["bytes"][self.read]
        parts = zip(self._model["parts"], each, strict=True)
        return float(sum(count * size for count, size in parts))

    def cache_bytes(self) -> int:
        """Keys and values of all texts, once; in float32 where the weights are, else bfloat16."""
        kept = self.tokens if self.prefill else self.tokens + 1
        return self.batch * kept * self._model["cached"] * (4 if self.weights == 0 else 2)

    def intensity(self) -> float:
        """Operations for each byte."""
        operations = self.matrix_operations() + self.attention_operations()
        return operations / (self.weight_bytes() + self.cache_bytes())

    def memory_seconds(self) -> float:
        """How long the bytes take at the machine's bandwidth."""
        return (self.weight_bytes() + self.cache_bytes()) / self.data["bandwidth"]

    def ceiling(self) -> float | None:
        """Operations a second of the kernel for few rows, if these are few."""
        own = self.data["ceilings"][WEIGHTS[self.weights]]
        place = (self.batch * self.new).bit_length() - 1
        return own[place] if place < len(own) else None

    def arithmetic_seconds(self) -> float:
        """How long the operations take: matrices at the speed of their kernel."""
        speed = self.data["speeds"][self.weights]
        matrices = self.matrix_operations() / (self.ceiling() or speed)
        return matrices + self.attention_operations() / speed

    def bound(self) -> str:
        """What the pass waits for."""
        return "memory" if self.memory_seconds() >= self.arithmetic_seconds() else "arithmetic"

    def limit(self) -> float:
        """Tokens a second of all texts together, at the limit."""
        return self.batch * self.new / max(self.memory_seconds(), self.arithmetic_seconds())

    def measured(self) -> float | None:
        """Tokens a second of the stored run, where it has just this pass."""
        key = [self.weights, self.prefill, self.batch, self.tokens]
        found = [point[4] for point in self.data["points"] if point[:4] == key]
        return float(found[0]) if found and self.size == 0 else None

    def description(self) -> str:
        kind = "a prompt" if self.prefill else "one token"
        said = f" Measured: {found:.1f} tokens/s." if (found := self.measured()) else ""
        times = [1000 * t for t in (self.memory_seconds(), self.arithmetic_seconds())]
        return (
            "Left, a roof on two logarithmic axes: a slope, the memory, up to a flat line, the "
            "arithmetic; small marks are measured passes, and a large one is "
            f"{kind} of Qwen2-{SIZES[self.size]} in {WEIGHTS[self.weights]}, at "
            f"{self.intensity():.1f} operations a byte, bound by {self.bound()}. Right, two bars: "
            f"{times[0]:.1f} ms for its bytes, {times[1]:.1f} ms for its operations. At the limit "
            f"{self.limit():.1f} tokens/s.{said}"
        )
