"""Make the tiny checkpoints that the package ships: `python tools/make_tiny.py [RUN_FOLDER]`.

Three stages on the little world (qwen2_book.world): pretraining, fine-tuning on conversations,
preferences. Writes qwen2_book/assets/base and qwen2_book/assets/tiny (the chat model), with the
metrics of the stages beside. Data, weights and batches follow from the seeds: on the same machine
a second run gives the same bytes. Pretraining has two parts, each with its own warm-up and decay:
the second starts from the weights in which the first was saved. A part that was interrupted goes on
from its last checkpoint, and a first part that is saved already is not made again.
What the models can do is measured by tools/score_tiny.py.
"""

import argparse
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import torch

from qwen2_book import Qwen2, Qwen2Config, Tokenizer, load, save
from qwen2_book.checkpoint.source import TINY
from qwen2_book.training import dpo, loop
from qwen2_book.training.data import Batch, PackedSource, Sample, whole
from qwen2_book.training.sft import conversation_sample
from qwen2_book.world.documents import document, tokenizer_texts
from qwen2_book.world.talk import conversation, preference

SEED, HELD_OUT_SEED = 0, 1_000_003
ROWS, LENGTH = 4, 256
RECITED = 1000  # batches at the start that only teach to look back and copy
SHAPE: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_theta": 10_000.0,
    "max_position_embeddings": 1024,
    "sliding_window": 1024,
    "max_window_layers": 6,
    "tie_word_embeddings": True,
    "initializer_range": 0.04,
}
PRETRAINING = loop.Settings(
    steps=6000,
    peak_rate=1.5e-3,
    warm_up=100,
    final_share=0.05,
    precision="bfloat16",
    save_every=500,
    evaluate_every=500,
)
MORE_PRETRAINING = dataclasses.replace(PRETRAINING, steps=4500)
FINE_TUNING = loop.Settings(
    steps=4000,
    peak_rate=8e-4,
    warm_up=20,
    final_share=0.05,
    precision="bfloat16",
    save_every=500,
    evaluate_every=250,
)
PREFERENCES = loop.Settings(
    steps=60, peak_rate=2e-5, warm_up=10, final_share=0.1, weight_decay=0.0, save_every=60
)
PAIRS, BETA, SFT_WEIGHT = 32, 0.1, 0.2
PER_BATCH = 30  # documents or conversations set aside for a batch, more than it can hold


def make_tokenizer() -> Tokenizer:
    """The tokenizer of the little world, trained on its own words."""
    return Tokenizer.train(tokenizer_texts(), 2048)


def pretraining_source(
    tokenizer: Tokenizer, seed: int = SEED, recited: int = RECITED
) -> PackedSource:
    end = tokenizer.added["<|endoftext|>"]

    def samples(batch: int) -> itertools.chain[Sample]:
        numbers = range(batch * PER_BATCH, (batch + 1) * PER_BATCH)
        found = (document(seed, number, batch < recited) for number in numbers)
        return itertools.chain(whole([*tokenizer.encode(text), end]) for text in found)

    return PackedSource(samples, ROWS, LENGTH, f"documents of the little world, seed {seed}")


def chat_source(tokenizer: Tokenizer, seed: int = SEED) -> PackedSource:
    def samples(batch: int) -> itertools.chain[Sample]:
        numbers = range(batch * PER_BATCH, (batch + 1) * PER_BATCH)
        return itertools.chain(
            conversation_sample(tokenizer, conversation(seed, k)) for k in numbers
        )

    return PackedSource(samples, ROWS, LENGTH, f"conversations, seed {seed}", cut=False)


class PreferenceSource:
    """Pairs of the little world, with the log-probabilities of a reference model."""

    def __init__(self, tokenizer: Tokenizer, reference: Qwen2, seed: int = SEED) -> None:
        self.tokenizer, self.reference, self.seed = tokenizer, reference, seed
        self.fingerprint = {"data": f"preference pairs, seed {seed}", "pairs": PAIRS}

    def batch(self, index: int) -> dpo.PairBatch:
        found = [preference(self.seed, index * PAIRS + k) for k in range(PAIRS)]
        pairs = [dpo.pair_samples(self.tokenizer, p.prompt, p.chosen, p.rejected) for p in found]
        return dpo.with_reference(self.reference, dpo.pair_batch(pairs))


def held_out(source: PackedSource, first: int = 0) -> list[Batch]:
    return [source.batch(k) for k in range(first, first + 12)]


def settle(model: Qwen2, tokenizer: Tokenizer, folder: Path, chat: bool) -> None:
    """Save a model in bfloat16, with its own stop tokens and sampling settings."""
    end, stop = tokenizer.added["<|endoftext|>"], tokenizer.added["<|im_end|>"]
    sampling = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20}
    model.generation = {"bos_token_id": end, "pad_token_id": end}
    model.generation |= {"eos_token_id": [stop, end] if chat else [end]} | (
        sampling if chat else {}
    )
    model.vocab_limit = len(tokenizer)
    save(model.to(torch.bfloat16), tokenizer, folder)


def copy_of(model: Qwen2) -> Qwen2:
    twin = Qwen2(model.config)
    twin.load_state_dict(model.state_dict())
    return twin.eval()


def first_part(tokenizer: Tokenizer, tested: list[Batch], runs: Path) -> Path:
    """From random weights: look back and copy, then documents. The folder of its weights."""
    torch.manual_seed(SEED)
    end, stop = tokenizer.added["<|endoftext|>"], tokenizer.added["<|im_end|>"]
    rows = -(-len(tokenizer) // 64) * 64  # padded, as the released embeddings are
    model = Qwen2(Qwen2Config(vocab_size=rows, bos_token_id=end, eos_token_id=stop, **SHAPE))
    source = pretraining_source(tokenizer)
    loop.train(model, source, PRETRAINING, runs / "pretraining", held_out=tested)
    settle(model, tokenizer, runs / "first_part", chat=False)
    return runs / "first_part"


def make(runs: Path) -> None:
    tokenizer = make_tokenizer()
    base, chat = TINY.parent / "base", TINY

    tested = held_out(pretraining_source(tokenizer, HELD_OUT_SEED, recited=0))
    first = runs / "first_part"
    if not first.exists():
        first = first_part(tokenizer, tested, runs)
    model, _ = load(first, dtype="float32")
    source = pretraining_source(tokenizer, SEED + 1, recited=0)
    loop.train(model, source, MORE_PRETRAINING, runs / "more_pretraining", held_out=tested)
    settle(copy_of(model), tokenizer, base, chat=False)

    tested = held_out(chat_source(tokenizer, HELD_OUT_SEED))
    source = chat_source(tokenizer)
    loop.train(model, source, FINE_TUNING, runs / "fine_tuning", held_out=tested)
    settle(copy_of(model), tokenizer, runs / "before_preferences", chat=True)

    pairs = PreferenceSource(tokenizer, copy_of(model))
    objective = dpo.preference_objective(BETA, sft_weight=SFT_WEIGHT)
    loop.train(model, pairs, PREFERENCES, runs / "preferences", loss=objective)
    settle(copy_of(model), tokenizer, chat, chat=True)

    for place, stages in (
        (base, ["pretraining", "more_pretraining"]),
        (chat, ["fine_tuning", "preferences"]),
    ):
        for stage in stages:
            text = (runs / stage / "metrics.csv").read_text("utf-8")
            (place / f"{stage}.csv").write_text(text, "utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="?", default=Path("_build/tiny"))
    make(parser.parse_args().runs)
