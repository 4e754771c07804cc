"""Online preference training: draw answers, let a judge choose the pair, merge while learning."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen2_book.errors import TrainingError
from qwen2_book.generate import generate, stop_ids
from qwen2_book.model import Qwen2
from qwen2_book.sampling import Sampler
from qwen2_book.training.data import Sample


def draw(
    model: Qwen2, prompts: Sequence[Sequence[int]], count: int, max_new_tokens: int, seed: int
) -> list[list[Sample]]:
    """`count` answers of the model to each prompt, at temperature 1; learned is the answer.

    An answer ends with its stop token, or without one after `max_new_tokens`.
    """
    asked = [list(prompt) for prompt in prompts for _ in range(count)]
    stops = set(stop_ids(model))
    samples: list[Sample] = []
    rows = generate(model, asked, max_new_tokens, Sampler(seed=seed)).tolist()
    for prompt, row in zip(asked, rows, strict=True):
        end = next((n + 1 for n, token in enumerate(row) if token in stops), len(row))
        samples.append((prompt + row[:end], [False] * len(prompt) + [True] * end))
    return [samples[n : n + count] for n in range(0, len(samples), count)]


def best_and_worst(
    answers: Sequence[Sample], rewards: Sequence[float]
) -> tuple[Sample, Sample] | None:
    """The answers with the highest and the lowest reward; None where none is better than another.

    Qwen2's online stage learns from this pair (technical report, section 4.3).
    """
    if len(answers) != len(rewards):
        raise TrainingError(f"{len(answers)} answers and {len(rewards)} rewards: expected as many.")
    best, worst = max(rewards), min(rewards)
    if best == worst:
        return None
    return answers[rewards.index(best)], answers[rewards.index(worst)]


class OnlineMerging(torch.optim.AdamW):
    """AdamW whose every step is merged with what fine-tuning had changed in the base model.

    OnDARE of arXiv:2405.17931. With d the step that AdamW would take and tau = fine-tuned - base,
    the weights move by (1 - alpha) drop(d) + alpha drop(tau). `drop` keeps a share `keep` of the
    numbers and divides those by it; tau is dropped once, at the start, and cut to [-1, 1]. `model`
    is the fine-tuned model, and is what will be trained. No weight decay.
    """

    def __init__(
        self, model: Qwen2, base: Qwen2, rate: float = 1e-3, keep: float = 0.5, alpha: float = 1e-3
    ) -> None:
        if not 0 < keep <= 1 or not 0 <= alpha < 1:
            raise TrainingError(
                f"keep {keep}, alpha {alpha}: expected a share above 0, at most 1, and 0 or more, "
                "below 1."
            )
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        super().__init__(trained, lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
        before = dict(base.named_parameters())
        with torch.no_grad():
            self.tau: list[Tensor] = [
                F.dropout(parameter - before[name], 1 - keep).clamp(-1, 1)
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
            ]
        self.trained, self.keep, self.alpha = trained, keep, alpha

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """AdamW's step, then the merge of it."""
        start = [parameter.clone() for parameter in self.trained]
        loss = super().step(closure)
        for parameter, old, tau in zip(self.trained, start, self.tau, strict=True):
            step = F.dropout(parameter - old, 1 - self.keep)
            parameter.copy_(old + (1 - self.alpha) * step + self.alpha * tau)
        return loss
