"""Train small mixtures of experts for chapter 08: `python tools/expert_training.py [PART ...]`.

Parts, each made of seeds (first weights and order of the batches) on the little world:

- balance: the same mixture with three weights of the auxiliary loss; the share of the tokens'
  choices that each expert gets, over the steps.
- dense: a dense network against a mixture with the same ACTIVE parameters, and against a dense
  network with the same TOTAL; three learning rates.
- upcycle: a mixture cut from a trained dense network, in four ways, trained on.

Written to `notebooks/data/08_experts.json`. One thread; all parts take about twenty minutes. Runs
that the file already holds are not made again.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import torch
from gate_training import Shuffled, batches
from torch import Tensor, nn

from qwen2_book import Qwen2, Qwen2Config
from qwen2_book.feedforward import SwiGLU
from qwen2_book.moe import MixtureOfExperts
from qwen2_book.training.data import Batch, layout
from qwen2_book.training.loop import Settings, train
from qwen2_book.training.loss import balanced_loss, language_loss

STORED = Path(__file__).parent.parent / "notebooks" / "data" / "08_experts.json"
SEEDS = range(6)
HIDDEN, LENGTH, STEPS, HELD_OUT = 64, 128, 200, 16
EXPERTS, TOP_K, WIDTH, SHARED = 16, 2, 44, 88  # active: 2 * 44 + 88 = 176 neurons of 792
COEFFICIENTS = (0.0, 0.001, 0.01)
RATES = (0.004, 0.008, 0.016)
WAYS = ("copies", "shuffled", "half drawn anew", "all drawn anew")
WATCHED = 10  # steps between two looks at the router


def configuration(**changes: Any) -> Qwen2Config:
    """Two layers of 64; dense, until experts are asked for."""
    settings = {
        "vocab_size": 2112,
        "hidden_size": HIDDEN,
        "intermediate_size": TOP_K * WIDTH + SHARED,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_theta": 10_000.0,
        "max_position_embeddings": LENGTH,
        "tie_word_embeddings": True,
        "initializer_range": 0.05,
    }
    return Qwen2Config(**{**settings, **changes})


def mixture(**changes: Any) -> Qwen2Config:
    """16 experts of which a token runs through 2, and a shared one."""
    settings = {
        "num_experts": EXPERTS,
        "num_experts_per_tok": TOP_K,
        "moe_intermediate_size": WIDTH,
        "shared_expert_intermediate_size": SHARED,
    }
    return configuration(**{**settings, **changes})


def network(config: Qwen2Config, seed: int) -> Qwen2:
    """A model with random weights; embedding, attention and norms are the same for all kinds."""
    torch.manual_seed(seed)
    model = Qwen2(configuration())
    other = Qwen2(config)
    shared = {k: v for k, v in model.state_dict().items() if ".mlp." not in k}
    other.load_state_dict(shared, strict=False)
    for layer in other.model.layers:
        for weight in layer.mlp.parameters():
            nn.init.normal_(weight, std=config.initializer_range)
    return other


@torch.no_grad()
def choices(model: Qwen2, batch: Batch) -> Tensor:
    """(layers, experts): which share of the tokens' choices each expert gets on a batch."""
    found: list[Tensor] = []

    def look(part: MixtureOfExperts, inputs: tuple[Tensor]) -> None:
        chosen = part.route(inputs[0].flatten(0, 1))[1].flatten()
        found.append(chosen.bincount(minlength=len(part.experts)) / len(chosen))

    hooks = [layer.mlp.register_forward_pre_hook(look) for layer in model.model.layers]
    model.hidden_states(batch.token_ids, *layout(batch.documents, model.config))
    for hook in hooks:
        hook.remove()
    return torch.stack(found)


def run(
    model: Qwen2,
    rate: float,
    seed: int,
    data: list[Batch],
    coefficient: float | None = None,
    steps: int = STEPS,
) -> tuple[float, list[Tensor]]:
    """Train; the held-out loss in nats a token, and the experts' shares every few steps."""
    settings = Settings(steps=steps, peak_rate=rate, warm_up=20, final_share=0.1)
    source, tested = Shuffled(data[:STEPS], seed), data[STEPS:]
    shares: list[Tensor] = []

    def watch(metrics: list) -> None:
        if coefficient is not None and metrics[-1]["step"] % WATCHED == 0:
            shares.append(choices(model, tested[0]))

    loss = language_loss if coefficient is None else balanced_loss(coefficient)
    metrics = train(model, source, settings, loss=loss, held_out=tested, on_step=watch)
    return metrics[-1]["held_out"], shares
