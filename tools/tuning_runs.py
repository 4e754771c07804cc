"""Make the stored runs of chapter 17: `python tools/tuning_runs.py [masks rates lora]`.

The shipped base model is fine-tuned for a short while on conversations of the little world, in
many ways, right and wrong. Five seeds each; a seed draws the conversations.

- masks: what is learned of a conversation, how the loss is averaged, and packing that leaks.
- rates: peak learning rates, from far too small to far too large.
- lora: adapters of three ranks, the last of them full, and with the embedding trained beside them.

Written to `notebooks/data/17_tuning.json`, with the fingerprint of the base model. One thread; a
run takes about a minute and there are 71. Runs that the file already holds are not made again,
unless the base model is another one: then all of them are.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from make_tiny import HELD_OUT_SEED
from score_tiny import base_prompt, chat_prompt
from torch import Tensor

from qwen2_book import Qwen2, Sampler, Tokenizer, generate, load
from qwen2_book.checkpoint.source import BASE
from qwen2_book.training.data import IGNORE, PADDING, Batch, PackedSource, Sample, whole
from qwen2_book.training.loop import Settings, train
from qwen2_book.training.lora import add_lora, merge_lora
from qwen2_book.training.loss import language_loss, mean_loss, token_log_probs
from qwen2_book.training.sft import conversation_sample
from qwen2_book.world.documents import document
from qwen2_book.world.score import majority, questions
from qwen2_book.world.talk import conversation

STORED = Path(__file__).parent.parent / "notebooks" / "data" / "17_tuning.json"
SEEDS = range(5)
STEPS, ROWS, LENGTH, ASKED = 120, 2, 256, 60
RATE, LORA_RATE = 1e-3, 3e-3
RATES = (1e-5, 1e-4, 1e-3, 1e-2)
RANKS = (4, 16, 192)  # the last: as many as the hidden state has numbers
MASKS = ("answers", "everything", "newline", "means", "no end", "one late", "leak")
PER_BATCH = 20  # conversations set aside for a batch, more than it can hold


def masked(tokenizer: Tokenizer, sample: Sample, mask: str) -> Sample:
    """A conversation with another choice of what is learned."""
    ids, learned = sample
    if mask == "everything":
        learned = [True] * len(ids)
    elif mask == "newline":  # the line end after <|im_end|>, too
        learned = [
            own or before for own, before in zip(learned, [False, *learned[:-1]], strict=True)
        ]
    elif mask == "no end":  # what padding with <|im_end|>, and masking it, does
        end = tokenizer.added["<|im_end|>"]
        learned = [own and token != end for token, own in zip(ids, learned, strict=True)]
    elif mask == "one late":  # each token's mark stands at the token after it
        learned = [False, *learned[:-1]]
    elif mask == "questions":  # only to measure: the user's words
        learned = users(tokenizer, ids)
    return ids, learned


def users(tokenizer: Tokenizer, ids: Any) -> list[bool]:
    """Which tokens are what a user said: from `user` and its line end to the end of the turn."""
    start, end = tokenizer.added["<|im_start|>"], tokenizer.added["<|im_end|>"]
    (role,), found, inside = tokenizer.encode("user"), [], False
    for at, token in enumerate(ids):
        inside = (inside or (at > 2 and list(ids[at - 3 : at - 1]) == [start, role])) and (
            token != end
        )
        found.append(inside)
    return found


class Leaking(PackedSource):
    """Packed rows in which every conversation sees those before it."""

    def batch(self, index: int) -> Batch:
        found = super().batch(index)
        documents = torch.where(found.documents == PADDING, PADDING, 0)
        return Batch(found.token_ids, found.targets, documents)


def source(tokenizer: Tokenizer, seed: int, mask: str = "answers") -> PackedSource:
    """Packed conversations of a seed."""

    def samples(batch: int) -> Iterator[Sample]:
        for k in range(batch * PER_BATCH, (batch + 1) * PER_BATCH):
            yield masked(tokenizer, conversation_sample(tokenizer, conversation(seed, k)), mask)

    kind = Leaking if mask == "leak" else PackedSource
    return kind(samples, ROWS, LENGTH, f"conversations, seed {seed}, {mask}", cut=False)


def by_conversation(model: Qwen2, batch: Batch) -> Tensor:
    """The mean over conversations of each one's mean, times the weight that the loop divides by.

    This is what averaging micro-batches of one conversation each comes to.
    """
    learned = batch.targets != IGNORE
    number = batch.documents + 1000 * torch.arange(len(batch.documents))[:, None]
    _, place, counts = number[learned].unique(return_inverse=True, return_counts=True)
    means = -(token_log_probs(model, batch) / counts[place]).sum() / len(counts)
    return means * batch.weight


def settings(steps: int = STEPS, rate: float = RATE) -> Settings:
    """The report's shape: decay to a tenth, weight decay 0.1, clipping at 1."""
    return Settings(steps=steps, peak_rate=rate, warm_up=5)


def copy_of(model: Qwen2) -> Qwen2:
    """A model of its own with the same weights."""
    twin = Qwen2(model.config)
    twin.load_state_dict(model.state_dict())
    twin.generation, twin.vocab_limit = model.generation, model.vocab_limit
    return twin.eval()


def tune(
    start: Qwen2,
    tokenizer: Tokenizer,
    seed: int,
    mask: str = "answers",
    rate: float = RATE,
    rank: int = 0,
    embedding: bool = False,
    steps: int = STEPS,
) -> Any:
    """Fine-tune a copy of the base model; a rank adds adapters and merges them at the end."""
    model = copy_of(start)
    if rank:
        torch.manual_seed(seed)
        add_lora(model, rank, alpha=rank)
        model.model.embed_tokens.weight.requires_grad_(embedding)
    loss = by_conversation if mask == "means" else language_loss
    train(model, source(tokenizer, 100 + seed, mask), settings(steps, rate), loss=loss)
    return merge_lora(model) if rank else model


def held_out(tokenizer: Tokenizer) -> dict[str, list[Batch]]:
    """What losses are measured on: answers, questions, and plain documents, none of them seen."""
    chats = [source(tokenizer, HELD_OUT_SEED, mask) for mask in ("answers", "questions")]
    end = tokenizer.added["<|endoftext|>"]

    def documents(batch: int) -> Iterator[Sample]:
        for k in range(batch * PER_BATCH, (batch + 1) * PER_BATCH):
            yield whole([*tokenizer.encode(document(HELD_OUT_SEED, k)), end])

    plain = PackedSource(documents, 2 * ROWS, LENGTH, f"documents, seed {HELD_OUT_SEED}")
    names = ("answer_loss", "question_loss", "document_loss")
    return {
        name: [each.batch(k) for k in range(6)]
        for name, each in zip(names, (*chats, plain), strict=True)
    }


def said(model: Qwen2, tokenizer: Tokenizer, rows: list[list[int]]) -> list[tuple[str, bool]]:
    """What a model says greedily, up to the first end or 24 tokens, and whether it ended by itself.

    Both end tokens stop it: `<|im_end|>` ends a turn, `<|endoftext|>` a document.
    """
    ends = [tokenizer.added["<|im_end|>"], tokenizer.added["<|endoftext|>"]]
    found = []
    for row in generate(model, rows, 24, sampler=Sampler(temperature=0), stop=ends).tolist():
        stop = next((at for at, token in enumerate(row) if token in ends), len(row))
        found.append((tokenizer.decode(row[:stop]).strip(), row[stop : stop + 1] == ends[:1]))
    return found


def measure(model: Qwen2, tokenizer: Tokenizer) -> dict[str, Any]:
    """Answers to unseen questions, in a chat and in a document; losses in nats a token."""
    asked = questions(HELD_OUT_SEED, ASKED)
    right = [each.question.answer for each in asked]
    told = said(model, tokenizer, [chat_prompt(tokenizer, each) for each in asked])
    read = said(model, tokenizer, [base_prompt(tokenizer, each) for each in asked])
    chats, texts = list(zip(told, right, strict=True)), list(zip(read, right, strict=True))
    return {
        "right": sum(text == answer and ended for (text, ended), answer in chats),
        "begun": sum(text.startswith(answer) for (text, _), answer in chats),
        "ended": sum(ended for _, ended in told),
        "documents": sum(text.split("\n")[0] == answer for (text, _), answer in texts),
        "guessed": sum(majority(each) == each.question.value for each in asked),
        "asked": ASKED,
        **{n: round(mean_loss(model, b), 4) for n, b in held_out(tokenizer).items()},
        "says": [text + ("<|im_end|>" if ended else "") for text, ended in told[:4]],
    }


def wanted(parts: list[str]) -> Iterator[dict[str, Any]]:
    """What is to be run."""
    yield {"part": "base"}
    for seed in SEEDS:
        if "masks" in parts:
            yield from ({"part": "masks", "mask": mask, "seed": seed} for mask in MASKS)
        if "rates" in parts:
            others = (rate for rate in RATES if rate != RATE)  # that one is "answers" above
            yield from ({"part": "rates", "rate": rate, "seed": seed} for rate in others)
        if "lora" in parts:
            for rank in RANKS:
                yield {"part": "lora", "rank": rank, "rate": LORA_RATE, "seed": seed}
            found = {"part": "lora", "rank": 16, "rate": LORA_RATE, "seed": seed}
            yield found | {"embedding": True}


def main() -> None:
    torch.set_num_threads(1)
    start, tokenizer = load(BASE, dtype="float32", device="cpu")
    assert tokenizer is not None
    weights = hashlib.sha256((BASE / "model.safetensors").read_bytes()).hexdigest()
    stored: dict[str, Any] = {"command": "python tools/tuning_runs.py", "base": weights, "runs": []}
    if STORED.exists():
        found = json.loads(STORED.read_text(encoding="utf-8"))
        stored = found if found["base"] == weights else stored
    done = {json.dumps(each["run"]) for each in stored["runs"]}
    for what in wanted(sys.argv[1:] or ["masks", "rates", "lora"]):
        if json.dumps(what) in done:
            continue
        options = {name: value for name, value in what.items() if name != "part"}
        model = tune(start, tokenizer, **options) if options else copy_of(start)
        stored["runs"].append({"run": what, **measure(model, tokenizer)})
        print(stored["runs"][-1], flush=True)
        lines = ",\n".join(
            json.dumps(each, separators=(",", ":"), ensure_ascii=False) for each in stored["runs"]
        )
        head = json.dumps({k: v for k, v in stored.items() if k != "runs"})[:-1]
        STORED.write_text(f'{head}, "runs": [\n{lines}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
