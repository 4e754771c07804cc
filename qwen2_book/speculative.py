"""Speculative decoding: a cheap draft proposes tokens, and one pass of the model judges all."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from qwen2_book.cache import KVCache
from qwen2_book.generate import PREFILL_CHUNK, stop_ids
from qwen2_book.model import Qwen2
from qwen2_book.sampling import GREEDY, Sampler


class Reader:
    """A model that keeps what it has read: of a text that begins like the last one, only the rest
    is run. `tokens_run` counts the tokens that went through the model.
    """

    def __init__(self, model: Qwen2, capacity: int = 4096) -> None:
        self.model, self.tokens_run = model, 0
        self.ids: list[int] = []
        self.cache = KVCache(model.config, 1, capacity, model.device, model.dtype, ring=False)

    @torch.no_grad()
    def logits(self, ids: Sequence[int], last: int = 1) -> Float[Tensor, "last vocab"]:
        """Logits after each of the last tokens of a text; more tokens than the capacity raise."""
        ids = list(ids)
        pairs = zip(self.ids, ids[: len(ids) - last], strict=False)
        same = next((n for n, (old, new) in enumerate(pairs) if old != new), None)
        same = min(len(self.ids), len(ids) - last) if same is None else same
        self.cache.truncate(same)
        found: list[Tensor] = []
        for start in range(same, len(ids), PREFILL_CHUNK):
            part = torch.tensor([ids[start : start + PREFILL_CHUNK]], device=self.model.device)
            found.append(self.model(part, self.cache, last_only=last == 1)[0])
        self.ids, self.tokens_run = ids, self.tokens_run + len(ids) - same
        return torch.cat(found)[-last:, : self.model.vocab_limit]


@runtime_checkable
class Draft(Protocol):
    """Whatever can guess how a text goes on."""

    def propose(
        self, ids: list[int], count: int, generator: torch.Generator | None
    ) -> tuple[list[int], Float[Tensor, "proposed vocab"] | None]:
        """At most `count` tokens, and the distribution that each was drawn from (None: certain)."""


@dataclass(frozen=True)
class PromptLookup:
    """Proposes what followed when the text's last tokens, at most `longest`, stood there before."""

    longest: int = 3

    def propose(self, ids, count, generator=None):
        for length in range(min(self.longest, len(ids) - 1), 0, -1):
            ending = ids[-length:]
            for start in range(len(ids) - length - 1, -1, -1):
                if ids[start : start + length] == ending:
                    return ids[start + length : start + length + count], None
        return [], None


class ModelDraft:
    """Proposes what a smaller model with the same vocabulary draws, with a sampler of its own."""

    def __init__(self, model: Qwen2, sampler: Sampler | None = None, capacity: int = 4096) -> None:
        self.reader, self.sampler = Reader(model, capacity), sampler or GREEDY

    def propose(self, ids, count, generator=None):
        tokens: list[int] = []
        odds: list[Tensor] = []
        while len(tokens) < count:
            text = [*ids, *tokens]
            history = torch.tensor([text], device=self.reader.model.device)
            odds.append(self.sampler.distribution(self.reader.logits(text), history)[0])
            tokens.append(int(torch.multinomial(odds[-1], 1, generator=generator)))
        return tokens, torch.stack(odds) if odds else None


def judge(
    target: Float[Tensor, "vocab"],
    drafted: Float[Tensor, "vocab"],
    token: int,
    generator: torch.Generator | None = None,
) -> tuple[bool, int]:
    """Whether a token drawn from `drafted` stays, and the token that then stands in its place.

    It stays with probability min(1, target / drafted); else one is drawn from what the target has
    more of. Either way the result is a draw from `target` (arXiv:2211.17192, appendix A.1).
    """
    luck = torch.rand((), generator=generator, device=target.device)
    if luck * drafted[token] < target[token]:
        return True, token
    rest = (target - drafted).clamp(min=0)
    rest = rest if bool(rest.any()) else target  # equal up to rounding
    return False, int(torch.multinomial(rest, 1, generator=generator))


@dataclass(frozen=True)
class Speculation:
    """The new tokens, and what they cost: passes of the model, proposed and accepted tokens."""

    token_ids: list[int]
    passes: int
    proposed: int
    accepted: int


def speculate(
    model: Qwen2,
    token_ids: Sequence[int],
    draft: Draft,
    max_new_tokens: int = 64,
    count: int = 4,
    sampler: Sampler | None = None,
    stop: Sequence[int] | None = None,
) -> Speculation:
    """What `generate` gives for one text, in fewer passes: up to `count` + 1 tokens from each.

    The tokens have the distribution that `sampler` alone would give them; greedy ones are the same.
    Raises ValueError where the draft's vocabulary is another one.
    """
    sampler, stops = sampler or GREEDY, set(stop_ids(model, stop))
    generator = sampler.generator(model.device)
    ids, end = list(token_ids), len(token_ids) + max_new_tokens
    reader = Reader(model, end + 1)
    passes = proposed = accepted = 0
    done = max_new_tokens < 1
    while not done:
        guess, odds = draft.propose(ids, min(count, end - len(ids) - 1), generator)
        logits = reader.logits(ids + guess, last=len(guess) + 1)
        odds = _odds(guess, odds, logits)
        passes, proposed = passes + 1, proposed + len(guess)
        for place in range(len(guess) + 1):
            history = torch.tensor([ids], device=model.device)
            target = sampler.distribution(logits[place : place + 1], history)[0]
            if kept := place < len(guess):
                kept, token = judge(target, odds[place], guess[place], generator)
            else:  # all were accepted: one more comes free
                token = int(torch.multinomial(target, 1, generator=generator))
            ids.append(token)
            accepted += kept
            done = token in stops or len(ids) == end
            if done or not kept:
                break
    return Speculation(ids[len(token_ids) :], passes, proposed, accepted)


def _odds(guess: list[int], odds: Tensor | None, logits: Tensor) -> Tensor:
    """The distributions behind the guesses; a certain guess has all of the probability."""
    vocabulary = logits.shape[-1]
    if odds is None:
        certain = torch.tensor(guess, dtype=torch.long, device=logits.device)
        return F.one_hot(certain, vocabulary).float()
    if odds.shape[-1] != vocabulary:
        raise ValueError(
            f"draft: found a vocabulary of {odds.shape[-1]:,} tokens, expected the model's "
            f"{vocabulary:,}. Both must come with the same tokenizer."
        )
    return odds


def with_layers(model: Qwen2, kept: Sequence[int]) -> Qwen2:
    """The same weights, not copied, with only these layers, in this order: a draft of the model."""
    config = model.config
    if len(set(config.layer_windows)) > 1 or config.num_experts:
        raise ValueError("with_layers: expected a dense model whose layers all have one window.")
    with torch.device("meta"):
        small = Qwen2(dataclasses.replace(config, num_hidden_layers=len(kept)))
    weights, start = model.state_dict(), "model.layers."
    own = {name: tensor for name, tensor in weights.items() if not name.startswith(start)}
    for new, old in enumerate(kept):
        names = (name for name in weights if name.startswith(f"{start}{old}."))
        own |= {f"{start}{new}.{name.split('.', 3)[3]}": weights[name] for name in names}
    small.load_state_dict(own, assign=True)
    small.vocab_limit, small.generation = model.vocab_limit, model.generation
    return small.eval()
