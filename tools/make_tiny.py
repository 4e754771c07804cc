"""Train the tiny checkpoint that the package ships: `python tools/make_tiny.py [--minutes 10]`.

Makes its own text (tools/tiny_world.py), its own tokenizer and its own model; writes
qwen2_book/assets/tiny, with the log of the run (log.csv) and what was measured (card.json) beside.
The data, the initial weights and the order of the batches follow from the seed; how many steps fit
into the minutes depends on the machine, so a second run gives a like model, not the same bytes.
"""

import argparse
import csv
import hashlib
import json
import math
import random
import time
from typing import Any

import torch
import torch.nn.functional as F
from tiny_world import Turn, conversations, repetitions, story, words_of_the_world
from torch import Tensor

from qwen2_book import Qwen2, Qwen2Config, Tokenizer, generate, save
from qwen2_book.checkpoint.source import TINY

SEED, HELD_OUT_SEED = 0, 1_000_003
CONVERSATIONS, BATCH = 16_000, 24
WARM_UP = 0.2  # the share of the time that goes to repeated lines
SHAPE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_theta": 10_000.0,
    "max_position_embeddings": 512,
    "sliding_window": 512,
    "max_window_layers": 4,
    "tie_word_embeddings": True,
    "initializer_range": 0.06,
}


def ids_of(tokenizer: Tokenizer, turns: list[Turn]) -> tuple[list[int], list[float]]:
    """Ids of a conversation, and how much each one's loss counts: answers ten times the rest."""
    messages = [{"role": role, "content": text} for role, text in turns]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=False)
    weights = [0.1] * len(ids)
    for k, (role, _) in enumerate(turns):
        if role == "assistant":
            start = len(tokenizer.apply_chat_template(messages[:k]))
            end = len(tokenizer.apply_chat_template(messages[: k + 1], None, False)) - 1
            weights[start:end] = [1.0] * (end - start)  # with <|im_end|>, without the line end
    return [*ids, tokenizer.added["<|endoftext|>"]], [*weights, 0.1]


def batches(tokenizer: Tokenizer, seed: int, count: int) -> list[tuple[Tensor, Tensor]]:
    """Ids and weights, one conversation a row, rows of like length together, padded on the right.

    A row is causal, so what stands after its end changes nothing; its loss has no weight.
    """
    return _batches([ids_of(tokenizer, turns) for turns in conversations(seed, count)])


def _batches(rows: list[tuple[list[int], list[float]]]) -> list[tuple[Tensor, Tensor]]:
    rows.sort(key=lambda row: len(row[0]))
    made = []
    for at in range(0, len(rows) - BATCH + 1, BATCH):
        group = rows[at : at + BATCH]
        width = len(group[-1][0])
        ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in group])
        made.append((ids, torch.tensor([w + [0.0] * (width - len(w)) for _, w in group])))
    return made


def loss_of(model: Qwen2, rows: Tensor, weights: Tensor) -> Tensor:
    losses = F.cross_entropy(
        model(rows[:, :-1]).flatten(0, 1).float(), rows[:, 1:].flatten(), reduction="none"
    )
    weights = weights[:, 1:].flatten()
    return (losses * weights).sum() / weights.sum()


@torch.no_grad()
def marks(model: Qwen2, tokenizer: Tokenizer, count: int = 150) -> dict[str, dict]:
    """Questions about unseen stories: the share answered exactly, per language and kind."""
    random_ = random.Random(HELD_OUT_SEED)
    result: dict[str, dict] = {}
    for language in ("en", "zh"):
        asked: list[tuple[str, str, str]] = []
        while len(asked) < count:
            tale = story(random_, language)
            kind, question, answer = random_.choice(tale.questions)
            between = " " if language == "en" else ""
            asked.append((kind, tale.text + between + question, answer))
        prompts = [
            tokenizer.apply_chat_template([{"role": "user", "content": text}])
            for _, text, _ in asked
        ]
        for (kind, _, answer), row in zip(
            asked, generate(model, prompts, max_new_tokens=24).tolist(), strict=True
        ):
            said = tokenizer.decode(row).split("<|im_end|>")[0]
            counts = result.setdefault(language, {}).setdefault(kind, {"right": 0, "asked": 0})
            counts["asked"] += 1
            counts["right"] += said == answer
    return result


def train(minutes: float) -> None:
    torch.manual_seed(SEED)
    tokenizer = Tokenizer.train(words_of_the_world(), 1200)
    data = batches(tokenizer, SEED, CONVERSATIONS)
    lines = [tokenizer.encode(line) for line in repetitions(SEED, 200 * BATCH)]
    warm_up = _batches([(line, [1.0] * len(line)) for line in lines])
    held_out = batches(tokenizer, HELD_OUT_SEED, 10 * BATCH)[::3]
    end, stop = tokenizer.added["<|endoftext|>"], tokenizer.added["<|im_end|>"]
    rows = -(-len(tokenizer) // 64) * 64  # padded, as the released embeddings are
    config = Qwen2Config(vocab_size=rows, bos_token_id=end, eos_token_id=stop, **SHAPE)
    model = Qwen2(config)
    decayed = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    peak = 3e-3
    optimizer = torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.95))
    TINY.mkdir(parents=True, exist_ok=True)
    began, done, step, tokens, log = time.perf_counter(), 0.0, 0, 0, []
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(data)} batches a pass")
    order = torch.randperm(len(data)).tolist()
    while done < 1:
        done = min((time.perf_counter() - began) / (60 * minutes), 1.0)
        rate = peak * min((step + 1) / 100, 0.5 * (1 + math.cos(math.pi * done)) * 0.97 + 0.03)
        for group in optimizer.param_groups:
            group["lr"] = rate
        warm = done < WARM_UP
        chosen = warm_up[step * 7 % len(warm_up)] if warm else data[order[step % len(data)]]
        loss = loss_of(model, *chosen)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        tokens += chosen[0].numel()
        if step % 50 == 0 or done >= 1:
            with torch.no_grad():
                losses = [float(loss_of(model, ids, (w == 1).float())) for ids, w in held_out]
            tested = sum(losses) / len(losses)
            log.append((step, tokens, round(loss.item(), 4), round(tested, 4)))
            if step % 100 == 0:
                print(*log[-1], f"{done:.0%}", flush=True)
    model = model.to(torch.bfloat16).eval()
    model.generation = {
        "bos_token_id": end,
        "pad_token_id": end,
        "eos_token_id": [stop, end],
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.8,
        "top_k": 20,
    }
    model.vocab_limit = len(tokenizer)
    save(model, tokenizer, TINY)
    with (TINY / "log.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("step", "tokens", "loss", "held_out_answer_loss"), *log])
    digest = hashlib.sha256((TINY / "model.safetensors").read_bytes()).hexdigest()
    card = {
        "seed": SEED,
        "steps": step,
        "tokens": tokens,
        "parameters": sum(p.numel() for p in model.parameters()),
        "held_out_answer_loss": log[-1][3],
        "answers": marks(model.float(), tokenizer),
        "corpus_sha256": hashlib.sha256(repr(conversations(SEED, 1000)).encode()).hexdigest(),
        "model_sha256": digest,
    }
    (TINY / "card.json").write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(json.dumps(card["answers"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    train(parser.parse_args().minutes)
