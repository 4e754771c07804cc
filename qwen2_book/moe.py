"""Mixture of experts: each token runs through the few experts that its router chooses."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from qwen2_book.config import Qwen2Config
from qwen2_book.feedforward import SwiGLU


class MixtureOfExperts(nn.Module):
    """Qwen2's expert layer (technical report, section 2.2.2), in place of one SwiGLU.

    y = sum over the top k of p_i E_i(x), plus sigmoid(w x) times the shared expert, where p is the
    softmax over ALL routed experts: the k weights are not renormalised (`norm_topk_prob` false),
    so they sum to less than 1.
    """

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.moe_intermediate_size
        self.top_k, self.renormalise = config.num_experts_per_tok, config.norm_topk_prob
        self.gate = nn.Linear(hidden, config.num_experts, bias=False)
        self.experts = nn.ModuleList(SwiGLU(hidden, inner) for _ in range(config.num_experts))
        self.shared_expert = SwiGLU(hidden, config.shared_expert_intermediate_size)
        self.shared_expert_gate = nn.Linear(hidden, 1, bias=False)

    def forward(self, x: Float[Tensor, "batch seq hidden"]) -> Float[Tensor, "batch seq hidden"]:
        tokens = x.flatten(0, 1)
        weights, chosen = self.route(tokens)
        routed = (self.one_token if len(tokens) == 1 else self.by_expert)(tokens, weights, chosen)
        shared = self.shared_expert_gate(tokens).sigmoid() * self.shared_expert(tokens)
        return (routed + shared).view_as(x)

    def by_expert(
        self,
        tokens: Float[Tensor, "tokens hidden"],
        weights: Float[Tensor, "tokens k"],
        chosen: Int[Tensor, "tokens k"],
    ) -> Float[Tensor, "tokens hidden"]:
        """The routed sum, each expert called once with all its tokens: sort, compute, add back."""
        order = chosen.flatten().argsort(stable=True)  # token-expert pairs, grouped by expert
        counts = chosen.flatten().bincount(minlength=len(self.experts)).tolist()
        rows = order // self.top_k
        groups = zip(self.experts, tokens[rows].split(counts), strict=True)
        outputs = torch.cat([expert(group) for expert, group in groups if len(group)])
        weighted = outputs * weights.flatten()[order, None]
        return torch.zeros_like(tokens).index_add_(0, rows, weighted)

    def one_token(
        self,
        token: Float[Tensor, "1 hidden"],
        weights: Float[Tensor, "1 k"],
        chosen: Int[Tensor, "1 k"],
    ) -> Float[Tensor, "1 hidden"]:
        """The routed sum of a single token, as in decoding: nothing to sort, k experts to call."""
        routed = torch.zeros_like(token)
        for weight, expert in zip(weights[0], chosen[0].tolist(), strict=True):
            routed = routed + weight * self.experts[expert](token)
        return routed

    def route(
        self, tokens: Float[Tensor, "tokens hidden"]
    ) -> tuple[Float[Tensor, "tokens k"], Int[Tensor, "tokens k"]]:
        """The weights and the numbers of the experts that each token goes to."""
        logits = self.gate(tokens)
        weights, chosen = logits.softmax(-1, dtype=torch.float32).topk(self.top_k)
        if self.renormalise:
            weights = weights / weights.sum(-1, keepdim=True)
        return weights.to(logits.dtype), chosen


def load_balancing_loss(
    router_logits: Float[Tensor, "tokens experts"],
    top_k: int,
    real: Bool[Tensor, "tokens"] | None = None,
) -> Float[Tensor, ""]:
    """The auxiliary loss E * sum over experts of f_e P_e, to be weighted by 0.001.

    f_e is the mean number of times a token chooses expert e, P_e its mean probability; all layers'
    router logits are concatenated along the tokens. Perfect balance gives top_k, not 1. `real`
    leaves padding out.
    """
    if real is not None:
        router_logits = router_logits[real]
    probabilities = router_logits.softmax(-1, dtype=torch.float32)
    experts = probabilities.shape[-1]
    chosen = F.one_hot(probabilities.topk(top_k).indices, experts).sum(1).float()
    return experts * (chosen.mean(0) * probabilities.mean(0)).sum()
