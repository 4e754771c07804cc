"""Neurons of the feed-forward layers: their gates over a text, and how well one picks a label."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qwen2_book.feedforward import SwiGLU
from qwen2_book.model import Qwen2


@torch.no_grad()
def gates(
    model: Qwen2, ids: Sequence[int], part: str = "gate_proj"
) -> Float[Tensor, "layers seq intermediate"]:
    """What the gate projection of each layer gives each token, before SiLU, in one run.

    `part` "up_proj" gives the other factor. Raises TypeError for mixture-of-experts layers, whose
    neurons see only the tokens that were sent to them.
    """
    kept: list[Tensor] = []
    hooks = []
    for layer in model.model.layers:
        if not isinstance(layer.mlp, SwiGLU):
            raise TypeError(f"found {type(layer.mlp).__name__}, expected dense SwiGLU layers.")
        linear = getattr(layer.mlp, part)
        hooks.append(linear.register_forward_hook(lambda *run: kept.append(run[-1][0])))
    try:
        model(torch.tensor([list(ids)], device=model.device), last_only=True)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(kept)


def separation(
    values: Float[Tensor, "seq neurons"], labels: Bool[Tensor, "kinds seq"]
) -> Float[Tensor, "kinds neurons"]:
    """The chance that a neuron is larger on a labelled token than on another: the area under ROC.

    1 separates the two kinds without error, 0.5 knows nothing, 0 separates them the wrong way
    round. The rank-sum form (Mann and Whitney); equal values keep their order in the text, so use
    it on real-valued neurons only. Each label must hold for some tokens and not for others.
    """
    order = values.T.contiguous().argsort(-1)
    places = torch.arange(1, len(values) + 1, dtype=torch.float32, device=values.device)
    ranks = torch.empty(order.shape, device=values.device)
    ranks.scatter_(1, order, places.expand_as(ranks))
    marked = labels.float()
    inside = marked.sum(-1, keepdim=True)
    above = marked @ ranks.T - inside * (inside + 1) / 2
    return above / (inside * (len(values) - inside))


@contextmanager
def closed(model: Qwen2, neurons: Sequence[tuple[int, int]]) -> Iterator[None]:
    """Hold the gates of some (layer, neuron) pairs shut while the model runs: their output is 0."""

    def shut(places: list[int]) -> Any:
        def hook(module: Any, inputs: Any, output: Tensor) -> Tensor:
            return output.index_fill(-1, torch.tensor(places, device=output.device), 0.0)

        return hook

    by_layer: dict[int, list[int]] = {}
    for layer, neuron in neurons:
        by_layer.setdefault(layer, []).append(neuron)
    hooks = []
    for layer, places in by_layer.items():
        mlp: Any = model.model.layers[layer].mlp
        hooks.append(mlp.gate_proj.register_forward_hook(shut(places)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
