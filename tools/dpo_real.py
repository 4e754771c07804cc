"""DPO with LoRA on a real checkpoint: `python tools/dpo_real.py [CHECKPOINT] [options]`.

The pairs are those of the little world (qwen2_book.world.talk.preference), the loss and the
adapters the package's own. The reference is the same model with its adapters off, and its
log-probabilities are computed once, before the first step. Without a GPU a
step of two pairs takes tens of seconds; with one, try `--steps 300 --batch 16`. The log is printed.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from qwen2_book import Qwen2, Tokenizer, load, save
from qwen2_book.training import dpo
from qwen2_book.training.loop import Settings, train
from qwen2_book.training.lora import add_lora, merge_lora, without_lora
from qwen2_book.world.talk import preference

TRAINED_SEED, HELD_OUT_SEED = 0, 1


class Pairs:
    """Batches of pairs with their reference; each is made and referred to once."""

    def __init__(self, model: Qwen2, tokenizer: Tokenizer, seed: int, batches: int, size: int):
        self.fingerprint = {"data": f"preference pairs, seed {seed}", "pairs": size}
        self.batches = []
        for index in range(batches):
            found = [preference(seed, index * size + k) for k in range(size)]
            rows = dpo.pair_batch(
                dpo.pair_samples(tokenizer, p.prompt, p.chosen, p.rejected) for p in found
            ).to(model.device)
            with without_lora(model):
                self.batches.append(dpo.with_reference(model, rows))

    def batch(self, index: int) -> dpo.PairBatch:
        return self.batches[index % len(self.batches)]


@torch.no_grad()
def look(model: Qwen2, pairs: Pairs) -> dict[str, float]:
    """Where the policy is on some pairs: both changes in nats an answer, share ranked right."""
    parts = [
        dpo.margins_of(dpo.sequence_log_probs(model, each.rows), each) for each in pairs.batches
    ]
    chosen = torch.cat([part.chosen for part in parts])
    rejected = torch.cat([part.rejected for part in parts])
    return {
        "chosen": round(float(chosen.mean()), 3),
        "rejected": round(float(rejected.mean()), 3),
        "accuracy": round(float((chosen > rejected).float().mean()), 3),
    }


def tune(
    model: Qwen2, tokenizer: Tokenizer, steps: int, batch: int, rate: float, beta: float, sft: float
) -> dict[str, Any]:
    """Train adapters on the pairs, in place: the loss of each step, and two held-out looks."""
    torch.manual_seed(0)
    add_lora(model, rank=8, alpha=16.0)
    held_out = Pairs(model, tokenizer, HELD_OUT_SEED, 4, 2)
    source = Pairs(model, tokenizer, TRAINED_SEED, steps, batch)
    looks: list[dict[str, float]] = []

    def watch(metrics: list) -> None:
        if len(metrics) % max(1, steps // 2) == 0:
            looks.append({"step": len(metrics), **look(model.eval(), held_out)})
            model.train()

    loss = dpo.preference_objective(beta, sft_weight=sft)
    settings = Settings(steps=steps, peak_rate=rate, warm_up=2, weight_decay=0.0)
    metrics = train(model, source, settings, loss=loss, on_step=watch)
    losses = [round(row["loss"], 4) for row in metrics]
    norms = [round(row["gradient_norm"], 3) for row in metrics]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"trained": trained, "losses": losses, "gradient_norms": norms, "held_out": looks}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", default=os.environ.get("QWEN2_BOOK_CHECKPOINT"))
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--batch", type=int, default=2, help="pairs a step")
    parser.add_argument("--rate", type=float, default=1e-4)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--sft", type=float, default=0.0, help="weight of the SFT term")
    parser.add_argument("--save", type=Path, help="folder for the merged model")
    options = parser.parse_args()
    if not options.source:
        sys.exit("name a checkpoint (folder, .gguf or hub id), or set QWEN2_BOOK_CHECKPOINT")
    model, tokenizer = load(options.source, dtype="float32")
    if tokenizer is None:
        sys.exit(f"{options.source} has no tokenizer, so there is no text to learn from")
    asked = {name: getattr(options, name) for name in ("steps", "batch", "rate", "beta", "sft")}
    found = {"model": model.name_or_path, **asked, **tune(model, tokenizer, **asked)}
    print(json.dumps(found, indent=1))
    if options.save:
        merge_lora(model)
        save(model, tokenizer, options.save)


if __name__ == "__main__":
    main()
