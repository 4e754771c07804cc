"""The loss of next-token prediction, with no more logits than it needs."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from qwen2_book.errors import TrainingError
from qwen2_book.model import Qwen2
from qwen2_book.moe import MixtureOfExperts, load_balancing_loss
from qwen2_book.training.data import IGNORE, PADDING, Batch, layout

CHUNK_LOGITS = 2**24  # how many logits exist at a time: 64 MB in float32


def token_log_probs(model: Qwen2, batch: Batch) -> Float[Tensor, "learned"]:
    """Log-probability of each target that is not IGNORE, row by row, in float32.

    Only those positions get logits, and of these only a chunk at a time: where there are several
    chunks, each one's logits are computed again in the backward pass instead of being kept.
    """
    positions, masks = layout(batch.documents, model.config)
    hidden = model.hidden_states(batch.token_ids, positions, masks)
    learned = batch.targets != IGNORE
    hidden, targets = hidden[learned], batch.targets[learned]
    weight = model.lm_head.weight
    rows = max(1, CHUNK_LOGITS // weight.shape[0])
    if len(targets) <= rows:
        return _log_probs(hidden, weight, targets)
    parts = [
        checkpoint(_log_probs, h, weight, t, use_reentrant=False)
        for h, t in zip(hidden.split(rows), targets.split(rows), strict=True)
    ]
    return torch.cat(parts)


def _log_probs(
    hidden: Float[Tensor, "n hidden"],
    weight: Float[Tensor, "vocab hidden"],
    targets: Int[Tensor, "n"],
) -> Float[Tensor, "n"]:
    logits = F.linear(hidden, weight).float()
    return -F.cross_entropy(logits, targets, reduction="none")


def language_loss(model: Qwen2, batch: Batch) -> Float[Tensor, ""]:
    """Cross-entropy in nats, SUMMED over the learned tokens; the loop divides by their number."""
    return -token_log_probs(model, batch).sum()


def balanced_loss(
    coefficient: float = 0.001, by_layer: bool = False
) -> Callable[[Qwen2, Batch], Tensor]:
    """A loss for `train` that also keeps the experts of a mixture equally busy.

    Per learned token it is the cross-entropy plus `coefficient` x `load_balancing_loss` over all
    real tokens and expert layers; 0.001 is the default in Qwen2's configuration. As in
    transformers all layers are pooled, so that one layer's idle expert is made up for by another
    layer's busy one of the same number; `by_layer` takes the mean of the layers' own losses.
    Raises TrainingError for a model without expert layers.
    """

    def objective(model: Qwen2, batch: Batch) -> Tensor:
        mixtures = [part for part in model.modules() if isinstance(part, MixtureOfExperts)]
        if not mixtures:
            raise TrainingError("a dense model has no experts to balance: use language_loss.")
        seen: list[Tensor] = []
        hooks = [
            part.gate.register_forward_hook(lambda _, __, logits: seen.append(logits))
            for part in mixtures
        ]
        try:
            loss = language_loss(model, batch)
        finally:
            for hook in hooks:
                hook.remove()
        parts = seen if by_layer else [torch.cat(seen)]
        real = (batch.documents != PADDING).flatten().repeat(len(seen) // len(parts))
        balances = [load_balancing_loss(part, mixtures[0].top_k, real) for part in parts]
        return loss + coefficient * batch.weight * sum(balances) / len(balances)

    return objective


@torch.no_grad()
def mean_loss(model: Qwen2, batches: list[Batch]) -> float:
    """Cross-entropy per learned token over several batches: what a held-out set is watched by."""
    total = sum(float(language_loss(model, batch)) for batch in batches)
    return total / sum(batch.weight for batch in batches)
