"""LoRA: train two thin matrices beside each frozen one (arXiv:2106.09685)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qwen2_book.errors import TrainingError

ALL_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class LoRALinear(nn.Linear):
    """y = Wx + (alpha / rank) B A x, in which only A and B are trained; B starts at zero."""

    def __init__(self, base: nn.Linear, rank: int, alpha: float) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.lora_a = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.normal_(self.lora_a, std=rank**-0.5)
        self.scale, self.enabled = alpha / rank, True

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        y = F.linear(x, self.weight, self.bias)
        if not self.enabled:
            return y
        return y + self.scale * F.linear(F.linear(x, self.lora_a), self.lora_b)


def add_lora(
    model: nn.Module, rank: int = 8, alpha: float = 16.0, layers: Sequence[str] = ALL_LAYERS
) -> nn.Module:
    """Freeze the model and put an adapter on every linear layer that is named, in place.

    Raises TrainingError where there is already an adapter or no such layer.
    """
    if list(_adapters(model)):
        raise TrainingError("the model has adapters already: merge_lora(model) first.")
    found = [
        (parent, name) for parent in model.modules() for name in layers if hasattr(parent, name)
    ]
    if not found or rank < 1:
        raise TrainingError(
            f"no adapter of rank {rank} fits on {', '.join(layers)}: expected a rank of at least 1 "
            f"and names out of {', '.join(ALL_LAYERS)}."
        )
    model.requires_grad_(False)
    for parent, name in found:
        setattr(parent, name, LoRALinear(getattr(parent, name), rank, alpha))
    return model


@contextmanager
def without_lora(model: nn.Module) -> Iterator[None]:
    """Inside, the model is what it was before the adapters: the reference of DPO, for nothing."""
    adapters = list(_adapters(model))
    try:
        for adapter in adapters:
            adapter.enabled = False
        yield
    finally:
        for adapter in adapters:
            adapter.enabled = True


@torch.no_grad()
def merge_lora(model: nn.Module) -> nn.Module:
    """Add the adapters to the weights and leave plain layers behind: no cost when running."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, LoRALinear):
                layer.weight += layer.scale * layer.lora_b @ layer.lora_a
                plain = nn.Linear(layer.in_features, layer.out_features, device="meta")
                plain.weight, plain.bias = layer.weight, layer.bias
                setattr(parent, name, plain)
    return model.requires_grad_(True)


def _adapters(model: nn.Module) -> Iterator[LoRALinear]:
    return (layer for layer in model.modules() if isinstance(layer, LoRALinear))
