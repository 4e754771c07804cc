"""From logits to a token: penalty, temperature, top-k, top-p, in this order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Sampler:
    """How the next token is chosen. Temperature 0 is greedy; `top_k` 0 and `top_p` 1 are off.

    `repetition_penalty` divides positive and multiplies negative logits of tokens that already
    stand in the row (arXiv:1909.05858, section 4.1). The same seed gives the same text.
    """

    temperature: float | int = 1.0
    top_k: int = 0
    top_p: float | int = 1.0
    repetition_penalty: float | int = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        for name, good, expected in (
            ("temperature", self.temperature >= 0, "0 (greedy) or more"),
            ("top_k", self.top_k >= 0, "0 (off) or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            ("repetition_penalty", self.repetition_penalty > 0, "above 0; 1 is off"),
        ):
            if not good:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected {expected}.")

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], seed: int | None = None) -> "Sampler":
        """The sampler that a checkpoint's `generation_config.json` asks for."""
        names = ("temperature", "top_k", "top_p", "repetition_penalty")
        values = {name: settings[name] for name in names if settings.get(name) is not None}
        if not settings.get("do_sample", False):
            values["temperature"] = 0.0
        return cls(**values, seed=seed)

    def generator(self, device: torch.device) -> torch.Generator | None:
        """A source of random numbers that starts at the seed; None leaves it to PyTorch's own."""
        if self.seed is None:
            return None
        return torch.Generator(device).manual_seed(self.seed)

    def candidates(
        self,
        logits: Float[Tensor, "batch vocab"],
        history: Int[Tensor, "batch seen"] | None = None,
    ) -> tuple[Float[Tensor, "batch candidates"], Int[Tensor, "batch candidates"]]:
        """Probabilities of the tokens still possible, and their ids, most likely first.

        Tokens that top-p rules out have probability 0. `history` holds the ids that the penalty
        looks at; -1 stands for padding.
        """
        scores = self.penalised(logits.float(), history)
        if self.temperature == 0:
            best = scores.argmax(-1, keepdim=True)
            return torch.ones_like(best, dtype=torch.float32), best
        scores = scores / self.temperature
        if 0 < self.top_k < scores.shape[-1]:
            scores, ids = scores.topk(self.top_k)
        else:
            scores, ids = scores.sort(descending=True, stable=True)
        probabilities = scores.softmax(-1)
        if self.top_p < 1:
            before = probabilities.cumsum(-1) - probabilities  # the mass of all likelier tokens
            probabilities = probabilities.masked_fill(before >= self.top_p, 0.0)
            probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        return probabilities, ids

    def distribution(
        self,
        logits: Float[Tensor, "batch vocab"],
        history: Int[Tensor, "batch seen"] | None = None,
    ) -> Float[Tensor, "batch vocab"]:
        """The probability of every token, in the order of the vocabulary; those cut have 0."""
        probabilities, ids = self.candidates(logits, history)
        return torch.zeros_like(logits, dtype=torch.float32).scatter(1, ids, probabilities)

    def penalised(self, scores: Tensor, history: Tensor | None) -> Tensor:
        """Scores (batch, vocab) with the repetition penalty applied to the ids in `history`."""
        if self.repetition_penalty == 1 or history is None:
            return scores
        seen = torch.zeros_like(scores, dtype=torch.bool)
        known = history.where((history >= 0) & (history < scores.shape[-1]), scores.shape[-1])
        seen = torch.nn.functional.pad(seen, (0, 1)).scatter(1, known, True)[:, :-1]
        penalty = self.repetition_penalty
        return torch.where(
            seen, torch.where(scores > 0, scores / penalty, scores * penalty), scores
        )

    def sample(
        self,
        logits: Float[Tensor, "batch vocab"],
        history: Int[Tensor, "batch seen"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "batch"]:
        """One token id a row."""
        probabilities, ids = self.candidates(logits, history)
        if self.temperature == 0:
            return ids[:, 0]
        choice = torch.multinomial(probabilities, 1, generator=generator)
        return ids.gather(1, choice)[:, 0]


GREEDY = Sampler(temperature=0.0)
