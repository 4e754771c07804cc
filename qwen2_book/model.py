"""Qwen2, whole: embedding, decoder layers, final norm, head."""

import copy

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from qwen2_book.attention import GroupedQueryAttention
from qwen2_book.cache import KVCache
from qwen2_book.config import Qwen2Config
from qwen2_book.feedforward import SwiGLU
from qwen2_book.moe import MixtureOfExperts
from qwen2_book.norm import RMSNorm
from qwen2_book.rope import RotaryEmbedding
from qwen2_book.window import Mask, positions_from_mask, visible

Masks = dict[int | None, Mask]  # by window: who sees whom


class DecoderLayer(nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)): the residual stream runs through."""

    def __init__(self, config: Qwen2Config, layer: int) -> None:
        super().__init__()
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.input_layernorm = RMSNorm(hidden, eps)
        self.self_attn = GroupedQueryAttention(config, layer)
        self.post_attention_layernorm = RMSNorm(hidden, eps)
        sparse = config.is_sparse(layer)
        self.mlp = MixtureOfExperts(config) if sparse else SwiGLU(hidden, config.intermediate_size)

    def forward(
        self,
        x: Float[Tensor, "batch seq hidden"],
        cos: Float[Tensor, "#batch seq pairs"],
        sin: Float[Tensor, "#batch seq pairs"],
        mask: Mask = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch seq hidden"]:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """The parts whose names begin with `model.` in a checkpoint; `Qwen2` runs them."""

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        layers = range(config.num_hidden_layers)
        self.layers = nn.ModuleList(DecoderLayer(config, layer) for layer in layers)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary = RotaryEmbedding(config)


def _tie_again(model: "Qwen2", _: object) -> None:
    model.tie_weights()


class Qwen2(nn.Module):
    """Token ids in, next-token logits out; dense or mixture of experts, as `config` says.

    Parameter names and shapes are those of the released checkpoints. `vocab_limit` is the number
    of tokens that the tokenizer knows: rows of the embedding from there on are padding and are
    never sampled. `generation` holds the checkpoint's generation settings, `name_or_path` where it
    came from; `load` sets all three.
    """

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__()
        self.config = config
        self.name_or_path = ""
        self.vocab_limit: int | None = None
        self.generation: dict = {}
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.tie_weights()
        self.register_load_state_dict_post_hook(_tie_again)
        if not self.lm_head.weight.is_meta:
            self.init_weights()

    def init_weights(self) -> None:
        """Random matrices with standard deviation `initializer_range`, and biases of zero."""
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=self.config.initializer_range)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def tie_weights(self) -> None:
        """Where the head is tied, make it the embedding matrix itself."""
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def forward(
        self,
        token_ids: Int[Tensor, "batch seq"],
        cache: KVCache | None = None,
        attention_mask: Bool[Tensor, "batch seq"] | Int[Tensor, "batch seq"] | None = None,
        last_only: bool = False,
    ) -> Float[Tensor, "batch out vocab"]:
        """Logits of the next token after each token, or (`last_only`) after the last.

        A cache is appended to, and positions continue from it. `attention_mask` covers the tokens
        passed, False for padding, which may only stand on the left. Raises ValueError for an empty
        prompt, ids outside the vocabulary, other padding, or more tokens than the cache can hold.
        """
        if not torch.compiler.is_compiling():
            self.check(token_ids, cache, attention_mask)
        positions, masks = self.positions_and_masks(token_ids, cache, attention_mask)
        x = self.hidden_states(token_ids, positions, masks, cache)
        return self.lm_head(x[:, -1:] if last_only else x)

    def hidden_states(
        self,
        token_ids: Int[Tensor, "batch seq"],
        positions: Int[Tensor, "#batch seq"],
        masks: Masks,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "batch seq hidden"]:
        """The residual stream after the final norm; the head makes logits of it."""
        x = self.model.embed_tokens(token_ids)
        cos, sin = (t.to(x.dtype) for t in self.model.rotary(positions.clamp(min=0)))
        for layer, window in zip(self.model.layers, self.config.layer_windows, strict=True):
            x = layer(x, cos, sin, masks[window], cache)
        return self.model.norm(x)

    def positions_and_masks(
        self, token_ids: Tensor, cache: KVCache | None, attention_mask: Tensor | None
    ) -> tuple[Int[Tensor, "#batch seq"], Masks]:
        """Each token's position, and for each kind of layer who sees whom (None: plain causal)."""
        batch, new = token_ids.shape
        start = 0 if cache is None else cache.length
        if attention_mask is not None and bool(attention_mask.all()):
            attention_mask = None
        padded = attention_mask is not None or (cache is not None and cache.padded)
        if padded:
            mask = torch.ones_like(token_ids) if attention_mask is None else attention_mask
            offset = token_ids.new_zeros(batch) if cache is None else cache.next_positions
            positions = positions_from_mask(mask.bool(), offset)
        else:
            positions = torch.arange(start, start + new, device=token_ids.device)[None]
        if cache is not None:
            cache.append(positions, padded)
        masks: Masks = {}
        for layer, window in enumerate(self.config.layer_windows):
            if window in masks:
                continue
            masks[window] = None
            sees_all = window is None or window >= start + new
            if padded or not sees_all or (start > 0 and new > 1):
                keys = positions if cache is None else cache.key_positions(layer, new)
                seen = visible(positions, keys, window, self.config.sink_tokens)
                masks[window] = seen[:, None]
        return positions, masks

    def check(
        self,
        token_ids: Tensor,
        cache: KVCache | None = None,
        attention_mask: Tensor | None = None,
    ) -> None:
        """Refuse what cannot be run; ids are only looked at on the CPU."""
        if token_ids.ndim != 2 or 0 in token_ids.shape:
            raise ValueError(
                f"token_ids: found shape {tuple(token_ids.shape)}, expected (batch, seq) with at "
                "least one token. An empty prompt has no next token: start with <|endoftext|>."
            )
        if token_ids.device.type == "cpu":
            low, high = map(int, token_ids.aminmax())
            if low < 0 or high >= self.config.vocab_size:
                bad = low if low < 0 else high
                raise ValueError(
                    f"token_ids: found id {bad}, expected 0 to {self.config.vocab_size - 1:,}. "
                    "Are these ids from this model's tokenizer?"
                )
        if attention_mask is not None and attention_mask.shape != token_ids.shape:
            raise ValueError(
                f"attention_mask: found shape {tuple(attention_mask.shape)}, expected that of "
                f"token_ids, {tuple(token_ids.shape)}: it covers the tokens passed, and the cache "
                "remembers the earlier ones."
            )
        if cache is not None:
            found = cache.batch, cache.keys[0].dtype, cache.keys[0].device.type
            expected = len(token_ids), self.dtype, self.device.type
            if found != expected:
                raise ValueError(
                    f"cache: found (batch, dtype, device) {found}, expected {expected}. Make it "
                    "with KVCache(model.config, batch, capacity, model.device, model.dtype)."
                )
            if not cache.serves(self.config):
                raise ValueError(
                    "cache: its rings are shorter than this model's windows "
                    f"{self.config.layer_windows}. Make it with this model's config, or ring=False."
                )

    def with_window(
        self, window: int | None, sink_tokens: int = 0, full_layers: int = 0
    ) -> "Qwen2":
        """The same weights, not copied, with the attention window switched on, or off (None)."""
        twin = copy.copy(self)
        twin.config = self.config.with_window(window, sink_tokens, full_layers)
        return twin

    @property
    def device(self) -> torch.device:
        return self.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.norm.weight.dtype

    def _apply(self, fn, recurse=True):  # `.to` and `to_empty` would untie a tied head
        super()._apply(fn, recurse)
        self.tie_weights()
        return self
