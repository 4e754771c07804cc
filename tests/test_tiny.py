"""The tiny checkpoint: small, whole, and as good as its card says."""

import csv
import hashlib
import json

import torch
from make_tiny import SEED, marks
from tiny_world import conversations

from qwen2_book import load, stream
from qwen2_book.checkpoint.source import TINY

CARD = json.loads((TINY / "card.json").read_text())


def test_it_is_small():
    assert sum(file.stat().st_size for file in TINY.iterdir()) <= 3_000_000


def test_it_is_the_one_that_the_card_describes():
    digest = hashlib.sha256((TINY / "model.safetensors").read_bytes()).hexdigest()
    assert digest == CARD["model_sha256"]
    model, tokenizer = load()
    assert sum(p.numel() for p in model.parameters()) == CARD["parameters"]
    assert model.dtype == torch.bfloat16 and model.vocab_limit == len(tokenizer)
    with (TINY / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["held_out_answer_loss"]) == CARD["held_out_answer_loss"]
    assert int(rows[-1]["step"]) == CARD["steps"]


def test_its_text_follows_from_the_seed():
    digest = hashlib.sha256(repr(conversations(SEED, 1000)).encode()).hexdigest()
    assert digest == CARD["corpus_sha256"]


def test_it_greets():
    """It offers a story, though not always in the language of the greeting."""
    model, tokenizer = load(dtype="float32")
    for greeting in ("Hello!", "你好！"):
        answer = "".join(stream(model, tokenizer, [{"role": "user", "content": greeting}]))
        assert "story" in answer or "故事" in answer


def test_it_answers_as_well_as_the_card_says():
    """Unseen stories; chance is one in two or three for people, one in eight for colours."""
    model, tokenizer = load(dtype="float32")
    found = marks(model, tokenizer, count=60)
    for language, kinds in found.items():
        right = sum(kind["right"] for kind in kinds.values())
        recorded = sum(k["right"] for k in CARD["answers"][language].values())
        asked = sum(k["asked"] for k in CARD["answers"][language].values())
        assert recorded / asked > 0.5
        assert right / 60 > recorded / asked - 0.2
