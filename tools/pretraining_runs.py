"""Pretrain small models for chapter 16: `python tools/pretraining_runs.py [PART ...]`.

Parts, each made of five seeds (first weights and order of the batches) on the little world:

- scaling: four sizes of Qwen2, each trained from nothing on several numbers of tokens; no document
  is seen twice. Held-out loss in nats a token.
- length: a model trained on short rows, then on: not at all, on short rows again, or on rows eight
  times as long with the rotary base as it was or a hundred times as large. Held-out loss by
  position in texts of the long length.

Written to `notebooks/data/16_pretraining.json`, with the law that is fitted to the first part (also
in the figure's own file). One thread; all parts take about twenty minutes on a busy machine. Runs
that the file already holds are not made again.
"""

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from gate_training import Shuffled

from qwen2_book import Qwen2, Qwen2Config, Tokenizer
from qwen2_book.checkpoint.source import BASE
from qwen2_book.costs import matmul_flops
from qwen2_book.training.data import Batch, PackedSource, Sample, pack, whole
from qwen2_book.training.loop import Settings, train
from qwen2_book.training.loss import mean_loss, token_log_probs
from qwen2_book.training.run_folder import Metrics
from qwen2_book.training.scaling import Law, fit_law
from qwen2_book.widgets import training_budget
from qwen2_book.world.documents import documents

STORED = Path(__file__).parent.parent / "notebooks" / "data" / "16_pretraining.json"
TOKENS = {"0.5B": 12e12, "1.5B": 7e12, "7B": 7e12, "72B": 7e12}  # technical report, table 1
WEB = Law(1.8172, 482.01, 2085.43, 0.3478, 0.3658)  # arXiv:2404.10102, table 1
SEEDS = range(5)
ROWS, LENGTH, HELD_OUT = 4, 128, 24
DATA_SEED, HELD_OUT_SEED = 16, 1_000_016
SIZES = {
    "tiny": (16, 2),
    "small": (32, 2),
    "middle": (64, 3),
    "large": (128, 4),
}  # hidden size, layers
STEPS = {
    "tiny": (256, 1024),
    "small": (128, 256, 512, 1024),
    "middle": (128, 256, 512),
    "large": (256, 512),
}
SHORT, LONG, FIRST, MORE = 64, 512, 400, 100  # tokens a row; steps
BASES = (10_000.0, 1_000_000.0)
FITTED = 100_000  # tokens; of shorter runs the warm-up is a sixth, and the law leaves them out
SPREAD = 0.5**0.5 / 10  # of the first weights; 0.02 and 0.035 learn more slowly in short runs


def configuration(size: str, vocabulary: int) -> Qwen2Config:
    """Heads of 16 dimensions, two query heads (the tiny one: one) for a key-value head."""
    hidden, layers = SIZES[size]
    return Qwen2Config(
        vocab_size=-(-vocabulary // 64) * 64,
        hidden_size=hidden,
        intermediate_size=hidden * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 16,
        num_key_value_heads=max(1, hidden // 32),
        rope_theta=BASES[0],
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        initializer_range=SPREAD,
    )


def network(size: str, seed: int, vocabulary: int, spread: float = SPREAD) -> Qwen2:
    """A model of one of the SIZES with random weights."""
    torch.manual_seed(seed)
    model = Qwen2(replace(configuration(size, vocabulary), initializer_range=spread))
    model.vocab_limit = vocabulary
    return model


def settings(size: str, steps: int) -> Settings:
    """Wider models get smaller rates: half divided by the hidden size, at the peak."""
    return Settings(steps=steps, peak_rate=0.5 / SIZES[size][0], warm_up=20, weight_decay=0.01)


def batches(tokenizer: Tokenizer, count: int, seed: int) -> list[Batch]:
    """Packed documents of a seed, no document twice."""
    end, stream = tokenizer.added["<|endoftext|>"], documents(seed)

    def samples(_: int) -> Iterator[Sample]:
        return (whole([*tokenizer.encode(text), end]) for text in stream)

    source = PackedSource(samples, ROWS, LENGTH, "documents")
    return [source.batch(k) for k in range(count)]


def world(tokenizer: Tokenizer) -> tuple[list[Batch], list[Batch]]:
    """The batches of all runs, enough for the longest, and those that are held out."""
    most = max(max(each) for each in STEPS.values())
    return batches(tokenizer, most, DATA_SEED), batches(tokenizer, HELD_OUT, HELD_OUT_SEED)


def long_batches(
    tokenizer: Tokenizer, count: int, seed: int, rows: int, length: int
) -> list[Batch]:
    """Rows cut from documents one after the other; in a row, every token sees all before it."""
    end, stream = tokenizer.added["<|endoftext|>"], documents(seed)
    found = []
    for _ in range(count):
        ids: list[int] = []
        while len(ids) <= rows * length:
            ids += [*tokenizer.encode(next(stream)), end]
        found.append(pack([whole(ids)], rows, length))
    return found


def run(
    size: str,
    steps: int,
    seed: int,
    data: list[Batch],
    tested: list[Batch],
    vocabulary: int,
    on_step: Callable[[Qwen2, Metrics], None] | None = None,
) -> tuple[Qwen2, Metrics]:
    """Train one model from nothing; the last of its metrics holds the held-out loss."""
    model = network(size, seed, vocabulary)
    watch = None if on_step is None else lambda metrics: on_step(model, metrics)
    source = Shuffled(data, seed)
    found = train(model, source, settings(size, steps), held_out=tested, on_step=watch)
    return model, found


def with_base(model: Qwen2, base: float) -> Qwen2:
    """A copy of the weights under another rotary base."""
    twin = Qwen2(replace(model.config, rope_theta=base))
    twin.load_state_dict(model.state_dict())
    return twin


@torch.no_grad()
def by_position(model: Qwen2, tested: list[Batch]) -> list[float]:
    """Held-out loss in nats in each stretch of SHORT tokens of the long texts."""
    losses = torch.stack([-token_log_probs(model, b).view(b.token_ids.shape) for b in tested])
    return [round(float(part.mean()), 4) for part in losses.split(SHORT, -1)]


def lengthened(tokenizer: Tokenizer, seed: int) -> dict[str, list[float]]:
    """The loss by position of one seed's model, continued in five ways."""
    short = long_batches(tokenizer, FIRST + MORE, DATA_SEED, 8, SHORT)
    long = long_batches(tokenizer, MORE, DATA_SEED + 1, 8 * SHORT // LONG, LONG)
    tested = long_batches(tokenizer, 16, HELD_OUT_SEED, 1, LONG)
    first = network("middle", seed, len(tokenizer), spread=0.05)
    train(first, Shuffled(short[:FIRST], seed), settings("middle", FIRST))
    found = {"not": by_position(first, tested)}
    found["not, larger base"] = by_position(with_base(first, BASES[1]), tested)
    more = replace(settings("middle", MORE), peak_rate=0.004, warm_up=10)
    for way, data, base in (
        ("short", short[FIRST:], BASES[0]),
        ("long", long, BASES[0]),
        ("long, larger base", long, BASES[1]),
    ):
        model = with_base(first, base)
        train(model, Shuffled(data, seed), more)
        found[way] = by_position(model, tested)
    return found


def weights_used(size: str, vocabulary: int) -> int:
    """N: the weights in the matrices that one token passes, the head included."""
    return matmul_flops(configuration(size, vocabulary)) // 2


def wanted(parts: list[str]) -> Iterator[dict[str, Any]]:
    """What is to be run: the cheap runs of all seeds first."""
    if "length" in parts:
        yield from ({"part": "length", "seed": seed} for seed in SEEDS)
    if "scaling" in parts:
        grid = [(size, steps) for size in SIZES for steps in STEPS[size]]
        cost = {(size, steps): steps * SIZES[size][0] ** 2 for size, steps in grid}
        for (size, steps), seed in itertools.product(sorted(grid, key=cost.__getitem__), SEEDS):
            yield {"part": "scaling", "size": size, "steps": steps, "seed": seed}


def points(stored: dict[str, Any], seed: int | None = None) -> list[tuple[int, int, float]]:
    """(N, D, loss) of the scaling runs, of one seed or of all."""
    runs = [each for each in stored["runs"] if each["run"]["part"] == "scaling"]
    return [(r["N"], r["D"], r["loss"]) for r in runs if seed in (None, r["run"]["seed"])]


def law(stored: dict[str, Any], seed: int | None = None) -> Law:
    """The law of the stored runs, of one seed or of all."""
    return fit_law(point for point in points(stored, seed) if point[1] > FITTED)


def figure_data(stored: dict[str, Any]) -> dict[str, Any]:
    """What the figure of the chapter shows: two laws, and the models to mark."""
    ours = sorted({(n, d) for n, d, _ in points(stored)})
    released = {name: Qwen2Config.named(f"Qwen2-{name}") for name in TOKENS}
    theirs = [[f"{n}", matmul_flops(c) // 2, TOKENS[n]] for n, c in released.items()]
    fitted = {key: float(f"{value:.5g}") for key, value in vars(law(stored)).items()}
    return {
        "worlds": {
            "web": {"title": "web text", "law": vars(WEB), "models": theirs}
            | {"compute": 21, "size": 8, "tokens": 10},
            "little": {
                "title": "the little world",
                "law": fitted,
                "models": [["", *p] for p in ours],
            }
            | {"compute": 10, "size": 4, "tokens": 4},
        }
    }


def main() -> None:
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(BASE)
    stored: dict[str, Any] = {"command": "python tools/pretraining_runs.py", "runs": []}
    if STORED.exists():
        stored = json.loads(STORED.read_text(encoding="utf-8"))
    done = [each["run"] for each in stored["runs"]]
    data, tested = world(tokenizer)
    for name in wanted(sys.argv[1:] or ["length", "scaling"]):
        if name in done:
            continue
        found: dict[str, Any] = {"run": name}
        if name["part"] == "length":
            found |= lengthened(tokenizer, name["seed"])
        else:
            size, steps, seed = name["size"], name["steps"], name["seed"]
            found["N"] = weights_used(size, len(tokenizer))
            found["D"] = steps * ROWS * LENGTH
            if steps == min(STEPS[size]):
                untrained = network(size, seed, len(tokenizer))
                found["before"] = round(mean_loss(untrained, tested), 4)
            _, metrics = run(size, steps, seed, data, tested, len(tokenizer))
            found["loss"] = round(metrics[-1]["held_out"], 4)
        stored["runs"].append(found)
        print(name, found.get("loss"), found.get("long"), flush=True)
        lines = ",\n".join(json.dumps(r, separators=(",", ":")) for r in stored["runs"])
        head = json.dumps(stored["command"])
        STORED.write_text(f'{{"command": {head}, "runs": [\n{lines}\n]}}\n', encoding="utf-8")
    text = json.dumps(figure_data(stored), indent=1) + "\n"
    training_budget.STORED.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
