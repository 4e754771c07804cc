"""The window's four consequences at once: mask, reach, operations, cache."""

from dataclasses import replace
from typing import ClassVar

import traitlets

from qwen2_book import costs
from qwen2_book.config import Qwen2Config
from qwen2_book.widgets.base import Figure, source
from qwen2_book.window import count_pairs, receptive_field


class WindowExplorer(Figure):
    """Length, window, sinks, layers and full layers; what follows from them, in one picture.

    Layers have the heads of Qwen2-0.5B: 14 for queries and 2 for keys and values, 64 wide; the
    cache is in bfloat16. The first `full_layers` layers have no window, as in Qwen2's rule.

    log_length, log_window: the length and the window as powers of two.
    """

    MODULE: ClassVar[str] = "window_explorer"
    LIMITS: ClassVar[dict[str, tuple[int, int]]] = {
        "log_length": (3, 17),
        "log_window": (0, 17),
        "sinks": (0, 8),
        "layers": (1, 80),
        "full_layers": (0, 80),
    }

    _esm = source("window_explorer")
    log_length = traitlets.Int(13).tag(sync=True)
    log_window = traitlets.Int(9).tag(sync=True)
    sinks = traitlets.Int(0).tag(sync=True)
    layers = traitlets.Int(24).tag(sync=True)
    full_layers = traitlets.Int(0).tag(sync=True)

    @property
    def config(self) -> Qwen2Config:
        """The configuration that the figure shows."""
        base = replace(Qwen2Config.named("Qwen2-0.5B"), num_hidden_layers=self.layers)
        full = min(self.full_layers, self.layers)
        return base.with_window(2**self.log_window, self.sinks, full)

    def pair_share(self) -> float:
        """The share of full attention's query-key pairs that is left, over all layers."""
        length = 2**self.log_length
        windows = self.config.layer_windows
        left = sum(count_pairs(length, window, self.sinks) for window in windows)
        return left / (len(windows) * count_pairs(length))

    def flops(self) -> int:
        """Operations of scores and weighted sums for the whole prompt."""
        return costs.attention_flops(self.config, 2**self.log_length)

    def reach(self) -> int:
        """How many tokens back the last output can be influenced, not through sinks."""
        return receptive_field(self.config.layer_windows, 2**self.log_length)

    def cache_bytes(self) -> int:
        """Keys and values if each window layer keeps its window and the sinks, nothing else."""
        length, config = 2**self.log_length, self.config
        slots = (
            length if window is None else min(length, window + self.sinks)
            for window in config.layer_windows
        )
        return sum(slots) * 2 * config.num_key_value_heads * config.head_dim * 2

    def description(self) -> str:
        return (
            f"Left, the mask of {2**self.log_length:,} tokens with a window of "
            f"{2**self.log_window:,}: a band below the diagonal; right, how the reach widens from "
            f"the last output down through {self.layers} layers, to {self.reach():,} tokens back. "
            f"{100 * self.pair_share():.1f}% of the pairs are left."
        )
