"""Decoding in fixed shapes, so that a GPU can record a step once and repeat it: CUDA graphs.

A step is hundreds of small kernels, and a GPU runs many of them faster than Python starts them. A
graph starts all at once, but repeats exactly what it recorded: the same kernels on the same memory.
So nothing in a step may follow a number that Python knows and the GPU does not. The token's column
is a tensor, keys are read to the end of a block of columns, and a mask hides those beyond.
"""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qwen2_book.cache import KVCache
from qwen2_book.model import Masks, Qwen2
from qwen2_book.quantize import FastQwen2
from qwen2_book.window import visible

BLOCK = 512  # columns: a step reads at most BLOCK - 1 keys too many; each size has its own graph


class FixedStep:
    """`model(token_ids, cache)` for one token a row, in fixed shapes; on CUDA a graph is replayed.

    The prompt is taken in as always, `model(prompt, cache, last_only=True)`, and what the model
    itself adds to the cache later is seen here, too. The logits are overwritten by the next call.
    Hidden columns are read with weight 0, so a NaN that an earlier text left there would show.
    Raises ValueError for a cache with rings (make it with `ring=False`), for token_ids that are not
    (batch, 1), for a full cache, for dual chunk attention, and on CUDA for a mixture of experts:
    which experts run depends on the token, so there is no one step to repeat.
    """

    def __init__(self, model: Qwen2, cache: KVCache) -> None:
        if any(slots < cache.capacity for slots in cache.slots):
            raise ValueError(
                "FixedStep: found a cache with rings, expected one that keeps every token: "
                "KVCache(..., ring=False)."
            )
        if type(model).hidden_states not in (Qwen2.hidden_states, FastQwen2.hidden_states):
            raise ValueError(
                f"FixedStep: found a {type(model).__name__}, expected a Qwen2 or an optimised one."
            )
        if model.device.type == "cuda" and model.config.num_experts:
            raise ValueError("FixedStep: a mixture of experts cannot be recorded: use the model.")
        self.model, self.cache = model, cache
        self.token = torch.zeros((cache.batch, 1), dtype=torch.long, device=model.device)
        self.position, self.column = torch.zeros_like(self.token), self.token.new_zeros(1)
        self.steps: dict[int, Callable[[], Tensor]] = {}
        if model.device.type == "cuda":
            self.stream, self.pool = torch.cuda.Stream(model.device), torch.cuda.graph_pool_handle()

    @torch.no_grad()
    def __call__(self, token_ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch 1 vocab"]:
        cache = self.cache
        if token_ids.shape != self.token.shape:
            raise ValueError(
                f"FixedStep: found token_ids of shape {tuple(token_ids.shape)}, expected "
                f"{tuple(self.token.shape)}: one new token for each row of the cache."
            )
        self.model.check(token_ids, cache)
        position = cache.next_positions[:, None]
        cache.append(position)
        self.token.copy_(token_ids)
        self.position.copy_(position)
        self.column.fill_(cache.length - 1)
        size = min(-(-cache.length // BLOCK) * BLOCK, cache.capacity)
        if size not in self.steps:
            self.steps[size] = self._recorded(partial(self.step, size))
        return self.steps[size]()

    def step(self, size: int) -> Float[Tensor, "batch 1 vocab"]:
        """What is recorded: reads the first `size` columns and no number that changes in Python."""
        columns = torch.arange(size, device=self.model.device)
        keys = torch.where(columns <= self.column, self.cache.positions[:, :size], -1)
        windows, sinks = set(self.model.config.layer_windows), self.model.config.sink_tokens
        masks: Masks = {w: visible(self.position, keys, w, sinks)[:, None] for w in windows}
        seen = _Columns(self.cache, self.column, size)
        return self.model.lm_head(self.model.hidden_states(self.token, self.position, masks, seen))

    def _recorded(self, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """The step itself, or on CUDA its graph; running it twice leaves the cache as once."""
        if self.model.device.type != "cuda":
            return step
        graph, here = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self.model.device)
        self.stream.wait_stream(here)
        with torch.cuda.stream(self.stream):
            step()  # libraries set themselves up in a first call, which may not be recorded
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                logits = step()
        here.wait_stream(self.stream)

        def replayed() -> Tensor:
            graph.replay()
            return logits

        return replayed


class _Columns(KVCache):
    """A cache's first columns, into which a layer writes at a column that only a tensor knows."""

    def __init__(self, cache: KVCache, column: Tensor, size: int) -> None:
        self.keys, self.values = cache.keys, cache.values
        self.column, self.size = column, size

    def update(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        kept = self.keys[layer], self.values[layer]
        for whole, fresh in zip(kept, (key, value), strict=True):
            whole.index_copy_(2, self.column, fresh)
        return kept[0][:, :, : self.size], kept[1][:, :, : self.size]
