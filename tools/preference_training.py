"""Preference training in miniature: `python tools/preference_training.py [PART ...]` (chapter 18).

A Qwen2 of 93,504 parameters learns 24 sums and 24 opposites: plain text first (base), then as
conversations (fine-tuned), where each sum is taught with its right answer AND with one too many.
Then pairs say which of the two is better. Five seeds each; a seed sets the first weights.

- offline: DPO at four betas, with and without the SFT term, and three variants; 80 steps each.
- online: the policy answers, a judge picks the pair; the judge is the exact checker, or a reward
  model that was trained on the pairs.
- merging: offline with the SFT term again, under the online merging optimiser.

Written to `notebooks/data/18_preferences.json`. One thread; all parts take about half an hour on a
busy machine. Runs that the file already holds are not made again.
"""

import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qwen2_book import Qwen2, Qwen2Config, Tokenizer, generate
from qwen2_book.training import dpo
from qwen2_book.training.data import Batch, Sample, unpacked, whole
from qwen2_book.training.loop import Settings, train
from qwen2_book.training.online import OnlineMerging, best_and_worst, draw
from qwen2_book.training.reward import RewardModel, reward_loss
from qwen2_book.training.sft import conversation_sample

STORED = Path(__file__).parent.parent / "notebooks" / "data" / "18_preferences.json"
SEEDS = range(5)
BASE_STEPS, SFT_STEPS, STEPS, ONLINE_STEPS, REWARD_STEPS, EVERY = 100, 200, 80, 60, 40, 4
RATE, SFT_RATE, BETA = 1e-3, 3e-3, 0.1
BETAS = (0.03, 0.1, 0.3, 1.0)
ANSWERS, LONGEST = 4, 14  # drawn for each prompt; tokens
ALPHAS, KEEPS = (0.001, 0.003, 0.01), (1.0, 0.5)
MERGES = [(keep, alpha) for keep in KEEPS for alpha in (0.0, *ALPHAS)]
MERGES.append((0.1, 0.0001))  # alpha a tenth of the rate, as in the authors' own script
OPPOSITES = [
    tuple(pair.split())
    for pair in (
        "hot cold,big small,day night,up down,old new,wet dry,fast slow,rich poor,hard soft,"
        "open shut,high low,long short,light dark,full empty,first last,near far,early late,"
        "loud quiet,thick thin,clean dirty,happy sad,strong weak,true false,sweet sour"
    ).split(",")
]
_random = random.Random(0)
SUMS = [(_random.randint(10, 99), _random.randint(10, 99)) for _ in range(24)]


def asked(text: str) -> list[dict[str, str]]:
    """A prompt of two messages."""
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]


def question(a: int, b: int) -> str:
    return f"{a}+{b}"


def answers(a: int, b: int) -> tuple[str, str]:
    """The chosen answer, and the rejected one: one too many."""
    return f"{a}+{b}={a + b}", f"{a}+{b}={a + b + 1}"


def make_tokenizer() -> Tokenizer:
    """300 tokens: the bytes, the control tokens, and a few pieces of the template."""
    lines = [question(*each) for each in SUMS] + [word for pair in OPPOSITES for word in pair]
    start = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
    end = "<|im_end|>\n<|im_start|>assistant\n"
    return Tokenizer.train([start + line + end for line in lines], 300)


TOKENIZER = make_tokenizer()
SUM_PROMPTS = [TOKENIZER.apply_chat_template(asked(question(*each))) for each in SUMS]
WORD_PROMPTS = [TOKENIZER.apply_chat_template(asked(word)) for word, _ in OPPOSITES]


def network(seed: int) -> Qwen2:
    """Two layers of 64, random weights."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_theta=10_000.0,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=TOKENIZER.added["<|endoftext|>"],
        pad_token_id=TOKENIZER.added["<|endoftext|>"],
        eos_token_id=TOKENIZER.added["<|im_end|>"],
    )
    return Qwen2(config).eval()


@torch.no_grad()
def loud(seed: int) -> Qwen2:
    """A random network with eight times the logits, so that any two differ widely."""
    model = network(seed)
    model.lm_head.weight.mul_(8)
    return model


def copy_of(model: Qwen2) -> Qwen2:
    """A model of its own with the same weights."""
    twin = Qwen2(model.config)
    twin.load_state_dict(model.state_dict())
    return twin.eval()


def plain_texts() -> Batch:
    """What the base model reads: both answers to every sum, and the opposites."""
    lines = [text for each in SUMS for text in answers(*each)]
    lines += [" ".join(pair) for pair in OPPOSITES]
    end = TOKENIZER.added["<|endoftext|>"]
    return unpacked(whole([*TOKENIZER.encode(line), end]) for line in lines)


def conversations() -> Batch:
    """What is fine-tuned on: both answers to every sum, equally often, and the opposites."""
    turns = [(question(*each), answer) for each in SUMS for answer in answers(*each)]
    return unpacked(
        conversation_sample(TOKENIZER, [*asked(text), {"role": "assistant", "content": answer}])
        for text, answer in [*turns, *OPPOSITES]
    )


def preferences() -> dpo.PairBatch:
    """The 24 pairs."""
    return dpo.pair_batch(
        dpo.pair_samples(TOKENIZER, asked(question(*each)), *answers(*each)) for each in SUMS
    )


class Always:
    """One batch at every step."""

    def __init__(self, batch: Batch | dpo.PairBatch) -> None:
        self.whole, self.fingerprint = batch, {"data": "one batch"}

    def batch(self, index: int) -> Batch | dpo.PairBatch:
        return self.whole


def settings(steps: int, rate: float) -> Settings:
    """A constant rate and no decay of weights."""
    return Settings(steps=steps, peak_rate=rate, final_share=1.0, weight_decay=0.0)


def base_and_tuned(seed: int) -> tuple[Qwen2, Qwen2]:
    """The base model of a seed, and the fine-tuned one, which is policy and reference to begin."""
    model = network(seed)
    train(model, Always(plain_texts()), settings(BASE_STEPS, SFT_RATE))
    base = copy_of(model)
    train(model, Always(conversations()), settings(SFT_STEPS, SFT_RATE))
    return base, model


def said(model: Qwen2, prompts: list[list[int]]) -> list[str]:
    """Greedy answers as text; one that does not end keeps a mark."""
    stop, found = TOKENIZER.added["<|im_end|>"], []
    for row in generate(model, prompts, LONGEST).tolist():
        text = TOKENIZER.decode(row[: row.index(stop)] if stop in row else row)
        found.append(text if stop in row else text + "…")
    return found


def judged(a: int, b: int, text: str) -> float:
    """The exact checker: 1 for the right sum, 0.5 for another one in the right form, else 0."""
    if text == answers(a, b)[0]:
        return 1.0
    return 0.5 if re.fullmatch(rf"{a}\+{b}=\d+", text) else 0.0


@torch.no_grad()
def measure(model: Qwen2, pairs: dpo.PairBatch) -> dict[str, float]:
    """Where a policy is: D of chosen and rejected, accuracy, and its greedy answers, counted."""
    margins = dpo.margins_of(dpo.sequence_log_probs(model, pairs.rows), pairs)
    sums, words = said(model, SUM_PROMPTS), said(model, WORD_PROMPTS)
    marks = [judged(*each, text) for each, text in zip(SUMS, sums, strict=True)]
    return {
        "chosen": round(float(margins.chosen.mean()), 2),
        "rejected": round(float(margins.rejected.mean()), 2),
        "accuracy": round(float((margins.chosen > margins.rejected).float().mean()), 3),
        "right": sum(mark == 1 for mark in marks),
        "formed": sum(mark > 0 for mark in marks),
        "opposites": sum(t == word for t, (_, word) in zip(words, OPPOSITES, strict=True)),
    }


@torch.no_grad()
def log_ratios(model: Qwen2, reference: Qwen2, count: int = 8, seed: int = 0) -> Tensor:
    """log policy - log reference of answers that the policy itself drew: their mean is the KL."""
    rows = [sample for group in draw(model, SUM_PROMPTS, count, LONGEST, seed) for sample in group]
    batch = unpacked(rows)
    return dpo.sequence_log_probs(model, batch) - dpo.sequence_log_probs(reference, batch)


def kl(model: Qwen2, reference: Qwen2) -> list[float]:
    """KL to the reference in nats an answer, and its standard error."""
    ratios = log_ratios(model, reference)
    return [round(float(ratios.mean()), 2), round(float(ratios.std()) / len(ratios) ** 0.5, 2)]


class Watch:
    """Measures a policy before the first step and after every few."""

    def __init__(self, model: Qwen2, pairs: dpo.PairBatch, every: int = EVERY) -> None:
        self.model, self.pairs, self.every = model, pairs, every
        self.rows: dict[str, list[float]] = {}
        self.add()

    def add(self) -> None:
        for name, value in measure(self.model.eval(), self.pairs).items():
            self.rows.setdefault(name, []).append(value)
        self.model.train()

    def __call__(self, metrics: list) -> None:
        if len(metrics) % self.every == 0:
            self.add()


OBJECTIVES: dict[str, dict[str, Any]] = {
    **{f"dpo {beta:g}": {"beta": beta} for beta in BETAS},
    **{f"dpo {beta:g} + sft": {"beta": beta, "sft_weight": 1.0} for beta in BETAS},
    "ipo": {"beta": BETA, "kind": "ipo"},
    "smoothed": {"beta": BETA, "label_smoothing": 0.1},
    "per token": {"beta": BETA, "kind": "sigmoid_norm"},
}


def offline(tuned: Qwen2, arm: str, optimizer: Any = None) -> tuple[Qwen2, Watch]:
    """Train a copy of the fine-tuned model on the pairs: the model, and what was measured.

    optimizer: makes one for the copy.
    """
    model = copy_of(tuned)
    pairs = dpo.with_reference(tuned, preferences())
    watch = Watch(model, pairs)
    chosen = None if optimizer is None else optimizer(model)
    loss = dpo.preference_objective(**OBJECTIVES[arm])
    train(model, Always(pairs), settings(STEPS, RATE), loss=loss, on_step=watch, optimizer=chosen)
    return model, watch


class Online:
    """Pairs that the policy itself drew and a judge chose; anew at each step."""

    def __init__(self, policy: Qwen2, reference: Qwen2, judge: Callable, seed: int) -> None:
        self.policy, self.reference, self.judge, self.seed = policy, reference, judge, seed
        self.fingerprint = {"data": "drawn by the policy"}

    def batch(self, index: int) -> dpo.PairBatch:
        groups = draw(self.policy, SUM_PROMPTS, ANSWERS, LONGEST, self.seed * 10_000 + index)
        rewards = self.judge([sample for group in groups for sample in group])
        found = [
            best_and_worst(group, rewards[n * ANSWERS : (n + 1) * ANSWERS])
            for n, group in enumerate(groups)
        ]
        pairs = [pair for pair in found if pair] or [(groups[0][0], groups[0][0])]  # nothing to say
        return dpo.with_reference(self.reference, dpo.pair_batch(pairs))


def text_of(sample: Sample) -> str:
    """The answer of a drawn sample; one without its end keeps a mark."""
    ids = [token for token, learned in zip(*sample, strict=True) if learned]
    ended = ids[-1] == TOKENIZER.added["<|im_end|>"]
    return TOKENIZER.decode(ids[:-1] if ended else ids) + ("" if ended else "…")


def checker(samples: list[Sample]) -> list[float]:
    """The exact checker's rewards; ANSWERS answers to each sum, in order."""
    return [judged(*SUMS[n // ANSWERS], text_of(sample)) for n, sample in enumerate(samples)]


def trained_judge(tuned: Qwen2, seed: int) -> RewardModel:
    """A reward model that has learnt the 24 pairs, from the fine-tuned weights on."""
    torch.manual_seed(seed)
    judge = RewardModel(copy_of(tuned))
    train(judge, Always(preferences()), settings(REWARD_STEPS, RATE), loss=reward_loss)
    return judge


@torch.no_grad()
def rewards_of(judge: RewardModel, samples: list[Sample]) -> list[float]:
    """The reward model's opinion."""
    return judge(unpacked(samples)).tolist()


def online(tuned: Qwen2, arm: str, seed: int) -> dict[str, Any]:
    """Train online under a judge; at each look also both judges' mean reward of fresh answers."""
    model, judge = copy_of(tuned), trained_judge(tuned, seed)
    pairs = dpo.with_reference(tuned, preferences())
    judges: dict[str, Callable] = {
        "checker": checker,
        "reward model": lambda samples: rewards_of(judge, samples),
    }
    found: dict[str, Any] = {name: [] for name in judges}

    def look(metrics: list) -> None:
        if len(metrics) % EVERY == 0:
            drawn = draw(model.eval(), SUM_PROMPTS, ANSWERS, LONGEST, 9)
            samples = [sample for group in drawn for sample in group]
            for name, mark in judges.items():
                found[name].append(round(sum(mark(samples)) / len(samples), 3))
            watch(metrics)

    watch = Watch(model, pairs, EVERY)
    watch.rows.clear()
    look([])
    source = Online(model, tuned, judges[arm], seed)
    loss = dpo.preference_objective(BETA)
    train(model, source, settings(ONLINE_STEPS, RATE), loss=loss, on_step=look)
    with torch.no_grad():
        known = judge(preferences().rows)
    found["pairs right"] = round(float((known[:24] > known[24:]).float().mean()), 3)
    example = said(model, SUM_PROMPTS)[0]
    return {**watch.rows, **found, "kl": kl(model, tuned), "example": example}


def wanted(parts: list[str]) -> Iterator[dict[str, Any]]:
    """What is to be run."""
    for seed in SEEDS:
        if "offline" in parts:
            yield from ({"part": "offline", "arm": arm, "seed": seed} for arm in OBJECTIVES)
        if "online" in parts:
            for judge in ("checker", "reward model"):
                yield {"part": "online", "arm": judge, "seed": seed}
        if "merging" in parts:
            for keep, alpha in MERGES:
                yield {"part": "merging", "keep": keep, "alpha": alpha, "seed": seed}


def run(what: dict[str, Any], base: Qwen2, tuned: Qwen2) -> dict[str, Any]:
    """One run: its curves and its end."""
    if what["part"] == "online":
        return online(tuned, what["arm"], what["seed"])
    if what["part"] == "offline":
        model, watch = offline(tuned, what["arm"])
    else:
        torch.manual_seed(what["seed"])
        model, watch = offline(
            tuned,
            "dpo 0.1 + sft",
            lambda model: OnlineMerging(model, base, RATE, what["keep"], what["alpha"]),
        )
    examples = said(model, SUM_PROMPTS)[:3]
    return {**watch.rows, "kl": kl(model, tuned), "examples": examples}


def main() -> None:
    torch.set_num_threads(1)
    stored: dict[str, Any] = {"command": "python tools/preference_training.py", "runs": []}
    if STORED.exists():
        stored = json.loads(STORED.read_text(encoding="utf-8"))
    done = {json.dumps(each["run"]) for each in stored["runs"]}
    seed = -1
    models: tuple[Qwen2, Qwen2] | None = None
    for what in wanted(sys.argv[1:] or ["offline", "online", "merging"]):
        if json.dumps(what) in done:
            continue
        if what["seed"] != seed:
            seed, models = what["seed"], base_and_tuned(what["seed"])
        assert models is not None
        found = run(what, *models)
        stored["runs"].append({"run": what, **found})
        print(what, {k: v[-1] for k, v in found.items() if isinstance(v, list)}, flush=True)
        lines = ",\n".join(
            json.dumps(each, separators=(",", ":"), ensure_ascii=False) for each in stored["runs"]
        )
        text = f'{{"command": {json.dumps(stored["command"])}, "runs": [\n{lines}\n]}}\n'
        STORED.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
