"""Direct preference optimisation: learn from pairs of answers, with no reward model."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from qwen2_book.errors import TrainingError
from qwen2_book.model import Qwen2
from qwen2_book.tokenizer import Tokenizer
from qwen2_book.training.data import IGNORE, Batch, Sample, unpacked
from qwen2_book.training.loss import token_log_probs

Kind = Literal["sigmoid", "ipo", "sigmoid_norm"]


@dataclass(frozen=True)
class PairBatch:
    """Pairs of answers as one batch: all chosen rows first, then all rejected rows.

    `reference` holds the reference model's log-probability of each row, computed once.
    """

    rows: Batch
    reference: Float[Tensor, "rows"] | None = None

    @property
    def weight(self) -> int:
        """How many pairs there are."""
        return len(self.rows.token_ids) // 2

    def to(self, device: torch.device) -> "PairBatch":
        """The same pairs on another device."""
        known = None if self.reference is None else self.reference.to(device)
        return PairBatch(self.rows.to(device), known)


def pair_samples(
    tokenizer: Tokenizer, prompt: Sequence[dict[str, Any]], chosen: str, rejected: str
) -> tuple[Sample, Sample]:
    """A prompt with its chosen and its rejected answer; learned is the answer with <|im_end|>.

    Raises TrainingError for an empty answer, for two equal ones, and for a prompt that does not
    end with the user's (or a tool's) turn.
    """
    if not prompt or prompt[-1].get("role") not in ("user", "tool"):
        found = prompt[-1].get("role") if prompt else "nothing"
        raise TrainingError(f"the prompt ends with {found!r}, expected a user's turn.")
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer.strip():
            raise TrainingError(f"the {name} answer is empty, expected some text.")
    if chosen == rejected:
        raise TrainingError(
            f"both answers are {chosen!r}: a pair says which of two is better. Leave it out."
        )
    start = tokenizer.apply_chat_template(prompt, add_generation_prompt=True)
    samples = []
    for answer in (chosen, rejected):
        turn = {"role": "assistant", "content": answer}
        ids = tokenizer.apply_chat_template([*prompt, turn], add_generation_prompt=False)[:-1]
        samples.append((ids, [False] * len(start) + [True] * (len(ids) - len(start))))
    return samples[0], samples[1]


def pair_batch(pairs: Iterable[tuple[Sample, Sample]]) -> PairBatch:
    """Pairs as rows: one answer a row, padded on the right."""
    chosen, rejected = zip(*pairs, strict=True)
    return PairBatch(unpacked([*chosen, *rejected]))


def sequence_log_probs(model: Qwen2, batch: Batch) -> Float[Tensor, "rows"]:
    """The log-probability of each row's learned tokens: a sum, not a mean."""
    rows = (batch.targets != IGNORE).nonzero()[:, 0]
    found = token_log_probs(model, batch)
    return found.new_zeros(len(batch.targets)).index_add(0, rows, found)


@torch.no_grad()
def with_reference(model: Qwen2, batch: PairBatch) -> PairBatch:
    """The pairs with this model's log-probabilities as the reference."""
    return replace(batch, reference=sequence_log_probs(model, batch.rows))


@dataclass(frozen=True)
class Margins:
    """What a preference loss is made of, per pair: log-ratios to the reference, and lengths."""

    chosen: Float[Tensor, "pairs"]
    rejected: Float[Tensor, "pairs"]
    chosen_tokens: Float[Tensor, "pairs"]
    rejected_tokens: Float[Tensor, "pairs"]


def preference_loss(
    margins: Margins, beta: float = 0.1, kind: Kind = "sigmoid", label_smoothing: float = 0.0
) -> Float[Tensor, "pairs"]:
    """The loss of each pair. With h = log-ratio of chosen minus log-ratio of rejected:

    - "sigmoid": -log σ(βh), DPO (arXiv:2305.18290, eq. 7). With label smoothing ε, which says that
      a share ε of the pairs is the wrong way round: -(1-ε) log σ(βh) - ε log σ(-βh).
    - "ipo": (h - 1/2β)² (arXiv:2310.12036) on log-ratios per token, as TRL computes it.
    - "sigmoid_norm": -log σ(βh) on log-ratios per token.
    """
    if not 0 <= label_smoothing < 0.5:
        raise TrainingError(f"label_smoothing is {label_smoothing}, expected 0 or more, below 0.5.")
    chosen, rejected = margins.chosen, margins.rejected
    if kind != "sigmoid":
        chosen, rejected = chosen / margins.chosen_tokens, rejected / margins.rejected_tokens
    h = chosen - rejected
    if kind == "ipo":
        return (h - 1 / (2 * beta)) ** 2
    wrong = label_smoothing * F.logsigmoid(-beta * h)
    return -(1 - label_smoothing) * F.logsigmoid(beta * h) - wrong


def preference_objective(
    beta: float = 0.1,
    kind: Kind = "sigmoid",
    label_smoothing: float = 0.0,
    sft_weight: float = 0.0,
) -> Callable[[Qwen2, PairBatch], Tensor]:
    """A loss for `train`: summed over the pairs, plus `sft_weight` x the chosen answers' own loss.

    The SFT term is the mean cross-entropy of the batch's chosen tokens, times the number of pairs.
    """

    def objective(model: Qwen2, batch: PairBatch) -> Tensor:
        log_probs = sequence_log_probs(model, batch.rows)
        margins = margins_of(log_probs, batch)
        loss = preference_loss(margins, beta, kind, label_smoothing).sum()
        if sft_weight:
            chosen = log_probs[: batch.weight]
            loss = loss - sft_weight * batch.weight * chosen.sum() / margins.chosen_tokens.sum()
        return loss

    return objective


def margins_of(log_probs: Float[Tensor, "rows"], batch: PairBatch) -> Margins:
    """Log-ratios to the reference, in nats, and the answers' lengths, in tokens."""
    if batch.reference is None:
        raise TrainingError(
            "the pairs have no reference: make them with with_reference(model, batch) first."
        )
    ratios = log_probs - batch.reference
    tokens = (batch.rows.targets != IGNORE).sum(1).to(ratios.dtype)
    pairs = batch.weight
    return Margins(ratios[:pairs], ratios[pairs:], tokens[:pairs], tokens[pairs:])
