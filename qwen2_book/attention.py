"""Grouped-query attention: many query heads share few key-value heads."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qwen2_book.cache import KVCache
from qwen2_book.config import Qwen2Config
from qwen2_book.rope import rotate


class GroupedQueryAttention(nn.Module):
    """Causal attention with `num_key_value_heads` keys and values for all query heads.

    Equal numbers of heads make it multi-head attention, one key-value head multi-query attention
    (arXiv:2305.13245). Queries, keys and values have biases, the output has none. Consecutive
    query heads share a key-value head; scores are scaled by head_dim^-1/2.
    """

    def __init__(self, config: Qwen2Config, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, config.head_dim
        hidden, head_dim = config.hidden_size, config.head_dim
        self.q_proj = nn.Linear(hidden, config.num_attention_heads * head_dim)
        self.k_proj = nn.Linear(hidden, config.num_key_value_heads * head_dim)
        self.v_proj = nn.Linear(hidden, config.num_key_value_heads * head_dim)
        self.o_proj = nn.Linear(config.num_attention_heads * head_dim, hidden, bias=False)

    def forward(
        self,
        x: Float[Tensor, "batch seq hidden"],
        cos: Float[Tensor, "#batch seq pairs"],
        sin: Float[Tensor, "#batch seq pairs"],
        mask: Bool[Tensor, "#batch 1 seq keys"] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch seq hidden"]:
        query, key = self.query_key(x, cos, sin)
        value = self._heads(self.v_proj(x))
        if cache is not None:
            key, value = cache.update(self.layer, key, value)
        return self.o_proj(attend(query, key, value, mask).transpose(1, 2).flatten(2))

    def query_key(
        self, x: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Float[Tensor, "batch heads seq dim"], Float[Tensor, "batch kv_heads seq dim"]]:
        """Rotated queries and keys of normed hidden states (batch, seq, hidden)."""
        query, key = self._heads(self.q_proj(x)), self._heads(self.k_proj(x))
        return rotate(query, cos, sin), rotate(key, cos, sin)

    def _heads(self, x: Tensor) -> Float[Tensor, "batch heads seq dim"]:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)


def attend(
    query: Float[Tensor, "batch heads seq dim"],
    key: Float[Tensor, "batch kv_heads keys dim"],
    value: Float[Tensor, "batch kv_heads keys dim"],
    mask: Bool[Tensor, "#batch 1 seq keys"] | None = None,
) -> Float[Tensor, "batch heads seq dim"]:
    """Softmax attention where the mask is True; None is plain causal (or one query that sees all).

    A single query's groups are folded into the query axis, so keys are read once, not repeated.
    """
    kv_heads = key.shape[1]
    if query.shape[2] == 1:
        folded = query.reshape(query.shape[0], kv_heads, -1, query.shape[3])
        return F.scaled_dot_product_attention(folded, key, value, mask).reshape(query.shape)
    return F.scaled_dot_product_attention(
        query, key, value, mask, is_causal=mask is None, enable_gqa=query.shape[1] != kv_heads
    )
