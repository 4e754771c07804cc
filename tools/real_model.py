"""The real checkpoint, for the scripts that store what it does."""

import os
import sys

from qwen2_book import Qwen2, Tokenizer, load


def source() -> str:
    """Where it is, from QWEN2_BOOK_CHECKPOINT; ends the program where that is not set."""
    if not (found := os.environ.get("QWEN2_BOOK_CHECKPOINT")):
        sys.exit("QWEN2_BOOK_CHECKPOINT is not set: it names the checkpoint to look at.")
    return found


def real_model() -> tuple[Qwen2, Tokenizer]:
    """The model in float32 on the CPU, as all stored numbers are, and its tokenizer."""
    model, tokenizer = load(source(), dtype="float32", device="cpu")
    assert tokenizer is not None
    return model, tokenizer
