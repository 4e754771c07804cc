"""Measure the tiny checkpoints and write their cards: `python tools/score_tiny.py [RUN_FOLDER]`.

Answers to questions about unseen stories, five seeds, beside a guess that only counts words; the
model's own stories, read back into events; pairs of answers before and after preference training.
The run folder is that of tools/make_tiny.py.
"""

import argparse
import csv
import hashlib
import json
import math
import statistics
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from make_tiny import HELD_OUT_SEED, PAIRS, STAGES, PreferenceSource

from qwen2_book import Qwen2, Sampler, Tokenizer, generate, load
from qwen2_book.checkpoint.source import BASE, TINY
from qwen2_book.world.documents import ASKED
from qwen2_book.world.score import Asked, majority, questions, read_story
from qwen2_book.world.talk import STORY_REQUESTS, preference

SEEDS, QUESTIONS, STORIES = range(HELD_OUT_SEED, HELD_OUT_SEED + 5), 240, 40
T95 = 2.776  # Student's t for 95% and five seeds
PROMPTS = ["Tell me a story.", "讲个故事吧。", "Hello!", "你好！", "What is the capital of France?"]
ROOT = Path(__file__).parent.parent


def chat_prompt(tokenizer: Tokenizer, asked: Asked) -> list[int]:
    """A question about a story as a user's turn."""
    return tokenizer.apply_chat_template([{"role": "user", "content": asked.prompt}])


def base_prompt(tokenizer: Tokenizer, asked: Asked) -> list[int]:
    """The same question as the base model saw questions: in a document, to be continued."""
    before, between = ASKED[asked.language]
    text = f"{asked.story.text}\n{before}{asked.question.text}\n{between.rstrip()}"
    return tokenizer.encode(text)


def answers(
    model: Qwen2,
    tokenizer: Tokenizer,
    asked: list[Asked],
    prompt: Callable[[Tokenizer, Asked], list[int]] = chat_prompt,
) -> list[str]:
    """What the model answers, greedily: one line, without the end token."""
    said = []
    for at in range(0, len(asked), 60):
        rows = [prompt(tokenizer, each) for each in asked[at : at + 60]]
        for row in generate(model, rows, max_new_tokens=24, sampler=Sampler(temperature=0)):
            text = tokenizer.decode(row.tolist()).split("<|im_end|>")[0].split("<|endoftext|>")[0]
            said.append(text.strip().split("\n")[0])
    return said


def marks(
    model: Qwen2,
    tokenizer: Tokenizer,
    seed: int,
    count: int = QUESTIONS,
    prompt: Callable[[Tokenizer, Asked], list[int]] = chat_prompt,
) -> dict[str, Counter]:
    """Right answers, right guesses and questions of a seed, by language and kind."""
    found: dict[str, Counter] = {"model": Counter(), "baseline": Counter(), "asked": Counter()}
    asked = questions(seed, count)
    for each, said in zip(asked, answers(model, tokenizer, asked, prompt), strict=True):
        key = each.language, each.question.kind
        found["asked"][key] += 1
        found["model"][key] += said == each.question.answer
        found["baseline"][key] += majority(each) == each.question.value
    return found


def interval(shares: list[float]) -> dict[str, float]:
    """Mean over the seeds, and half of the width of its 95% interval."""
    half = T95 * statistics.stdev(shares) / math.sqrt(len(shares))
    return {"mean": round(statistics.fmean(shares), 4), "plus_minus": round(half, 4)}


def scores(
    model: Qwen2,
    tokenizer: Tokenizer,
    prompt: Callable[[Tokenizer, Asked], list[int]] = chat_prompt,
) -> dict[str, Any]:
    """Shares of right answers over the seeds: in all, by language, and by language and kind."""
    runs = [marks(model, tokenizer, seed, QUESTIONS, prompt) for seed in SEEDS]
    result: dict[str, Any] = {}
    for language in ("en", "zh"):
        keys = [key for key in runs[0]["asked"] if key[0] == language]
        result[language] = {}
        for who in ("model", "baseline"):
            shares = [
                sum(run[who][k] for k in keys) / sum(run["asked"][k] for k in keys) for run in runs
            ]
            result[language][who] = interval(shares)
        for key in sorted(keys):
            right, asked = (sum(run[who][key] for run in runs) for who in ("model", "asked"))
            guessed = sum(run["baseline"][key] for run in runs)
            result[language][key[1]] = {"right": right, "guessed": guessed, "asked": asked}
    return result


def stories(model: Qwen2, tokenizer: Tokenizer) -> dict[str, Any]:
    """The model's own stories, sampled: sentences, faults, and stories without any fault."""
    result: dict[str, Any] = {}
    for language in ("en", "zh"):
        sentences, faults, whole = 0, 0, []
        for seed in SEEDS:
            asked = [STORY_REQUESTS[language][k % 6] for k in range(STORIES)]
            rows = [
                tokenizer.apply_chat_template([{"role": "user", "content": text}]) for text in asked
            ]
            sampler = Sampler(temperature=0.7, top_p=0.8, top_k=20, seed=seed)
            made = generate(model, rows, max_new_tokens=220, sampler=sampler)
            readings = [
                read_story(tokenizer.decode(row.tolist()).split("<|im_end|>")[0], language)
                for row in made
            ]
            sentences += sum(reading.sentences for reading in readings)
            faults += sum(len(reading.faults) for reading in readings)
            whole.append(sum(not r.faults and r.sentences > 2 for r in readings) / STORIES)
        result[language] = {
            "without_a_fault": interval(whole),
            "sentences": sentences,
            "faults": faults,
        }
    return result


@torch.no_grad()
def preferred(model: Qwen2, tokenizer: Tokenizer, batches: int = 8) -> dict[str, dict[str, int]]:
    """How often the chosen answer is the more probable one per token, by rule, on unseen pairs."""
    source = PreferenceSource(tokenizer, model, HELD_OUT_SEED)
    found: dict[str, dict[str, int]] = {}
    for index in range(batches):
        batch = source.batch(index)
        assert batch.reference is not None
        means = batch.reference / (batch.rows.targets >= 0).sum(1)
        chosen, rejected = means.chunk(2)
        for k, better in enumerate((chosen > rejected).tolist()):
            rule = preference(HELD_OUT_SEED, index * PAIRS + k).rule
            counts = found.setdefault(rule, {"right": 0, "asked": 0})
            counts["right"] += better
            counts["asked"] += 1
    return dict(sorted(found.items()))


def samples(model: Qwen2, tokenizer: Tokenizer) -> dict[str, str]:
    """What it says to a few prompts, greedily."""
    said = {}
    for text in PROMPTS:
        row = tokenizer.apply_chat_template([{"role": "user", "content": text}])
        ids = generate(model, [row], max_new_tokens=200, sampler=Sampler(temperature=0))[0]
        said[text] = tokenizer.decode(ids.tolist()).split("<|im_end|>")[0]
    return said


def card(folder: Path, stages: list[str]) -> dict[str, Any]:
    """What every card says: how large, from which stages, and how the held-out loss ended."""
    model, _ = load(folder)
    found: dict[str, Any] = {"parameters": sum(p.numel() for p in model.parameters()), "stages": {}}
    for stage in stages:
        with (folder / f"{stage}.csv").open() as file:
            rows = list(csv.DictReader(file))
        found["stages"][stage] = {
            "steps": len(rows),
            "learned": sum(int(row["learned"]) for row in rows),
            "loss": round(float(rows[-1]["loss"]), 4),
        }
        if rows[-1]["held_out"] != "nan":
            found["stages"][stage]["held_out"] = round(float(rows[-1]["held_out"]), 4)
    weights = (folder / "model.safetensors").read_bytes()
    found["model_sha256"] = hashlib.sha256(weights).hexdigest()
    return found


def table(cards: dict[Path, dict[str, Any]]) -> str:
    """The scores as a table for the data card."""
    lines = ["<!-- scores -->", "", "| right answers, % | English | 中文 |", "|---|---:|---:|"]
    rows = [
        ("base model", cards[BASE]["answers"], "model"),
        ("chat model, before preferences", cards[TINY]["answers_before_preferences"], "model"),
        ("chat model", cards[TINY]["answers"], "model"),
        ("guess: the candidate that is said most", cards[TINY]["answers"], "baseline"),
    ]
    for name, found, who in rows:
        cells = [_percent(found[language][who]) for language in ("en", "zh")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for name, key in (("before preferences", "_before_preferences"), ("sampled", "")):
        told = cards[TINY][f"stories{key}"]
        cells = [_percent(told[language]["without_a_fault"]) for language in ("en", "zh")]
        lines.append(f"| own stories without a fault, {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "<!-- /scores -->"])


def _percent(found: dict[str, float]) -> str:
    return f"{100 * found['mean']:.1f} ± {100 * found['plus_minus']:.1f}"


def score(runs: Path) -> None:
    base, tokenizer = load(BASE, dtype="float32")
    assert tokenizer is not None
    chat, _ = load(TINY, dtype="float32")
    before, _ = load(runs / "before_preferences", dtype="float32")
    cards = {
        BASE: card(BASE, STAGES[BASE]) | {"answers": scores(base, tokenizer, base_prompt)},
        TINY: card(TINY, STAGES[TINY])
        | {
            "answers": scores(chat, tokenizer),
            "answers_before_preferences": scores(before, tokenizer),
            "stories": stories(chat, tokenizer),
            "stories_before_preferences": stories(before, tokenizer),
            "preferred": preferred(chat, tokenizer),
            "preferred_before_preferences": preferred(before, tokenizer),
            "samples": samples(chat, tokenizer),
        },
    }
    page = ROOT / "little_world.md"
    before_table, _, after = page.read_text("utf-8").partition("<!-- scores -->")
    after = after.partition("<!-- /scores -->")[2] or after
    page.write_text(f"{before_table}{table(cards)}{after}", "utf-8")
    for folder, found in cards.items():
        text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
        (folder / "card.json").write_text(text, "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="?", default=Path("_build/tiny"))
    score(parser.parse_args().runs)
