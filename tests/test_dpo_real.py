"""DPO with LoRA on the real checkpoint: a few steps of what tools/dpo_real.py does."""

import math

import dpo_real
import pytest
import torch

from qwen2_book import load
from qwen2_book.training import dpo
from qwen2_book.training.loop import Settings, train
from qwen2_book.training.lora import add_lora, without_lora


def short_pairs(tokenizer):
    """Two pairs of a few tokens, so that a step takes seconds."""
    return dpo.pair_batch(
        dpo.pair_samples(
            tokenizer,
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}],
            chosen,
            rejected,
        )
        for text, chosen, rejected in (("3+4", "7", "8"), ("天空是什么颜色？", "蓝色。", "Blue."))
    )


def test_three_steps_on_the_real_checkpoint(real_checkpoint):
    model, tokenizer = load(real_checkpoint, device="cpu", dtype="float32")
    torch.manual_seed(0)
    add_lora(model, rank=4)
    with without_lora(model):
        batch = dpo.with_reference(model, short_pairs(tokenizer))
    frozen = model.model.layers[3].mlp.up_proj.weight.clone()

    class Same:
        fingerprint = {"data": "two pairs"}

        def batch(self, index):
            return batch

    settings = Settings(steps=3, peak_rate=1e-3, weight_decay=0.0)
    metrics = train(model, Same(), settings, loss=dpo.preference_objective(0.1))
    losses = [row["loss"] for row in metrics]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-5)  # a fresh adapter is the reference
    assert metrics[0]["gradient_norm"] > 0.01
    assert losses[2] < losses[1] < losses[0]
    assert torch.equal(frozen, model.model.layers[3].mlp.up_proj.weight)


def test_the_script_on_the_tiny_checkpoint():
    """The same program end to end, in seconds: adapters, reference once, held-out looks."""
    model, tokenizer = load(dtype="float32")
    found = dpo_real.tune(model, tokenizer, steps=8, batch=4, rate=3e-3, beta=0.1, sft=0.0)
    assert found["losses"][0] == pytest.approx(math.log(2), abs=1e-4)
    assert min(found["losses"][1:]) < 0.65
    assert [row["step"] for row in found["held_out"]] == [4, 8]
    assert all(row["chosen"] != 0 for row in found["held_out"])
