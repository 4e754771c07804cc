"""Store what rounding to each type does to the real model: `python tools/rounding_data.py`.

Needs QWEN2_BOOK_CHECKPOINT. Every matrix is rounded to a type and read back, norms and biases stay
as they are; then the perplexity of `notebooks/data/06_texts/check.txt`. Rows of 896 are no whole
blocks of 256, so the K-quants' blocks run on across the ends of rows, which in a file they may not.
Written to `notebooks/data/10_rounding.json`.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from real_model import real_model, source
from torch import Tensor

from qwen2_book import Qwen2, Tokenizer
from qwen2_book.checkpoint import blocks
from qwen2_book.checkpoint.safetensors_file import read_folder, read_tensors

DATA = Path(__file__).parent.parent / "notebooks" / "data"
KINDS = ["BF16", "Q8_0", "Q6_K", "Q5_1", "Q5_0", "Q5_K", "Q4_1", "Q4_0", "Q4_K", "MXFP4"]


def rounded(weight: Tensor, kind: str) -> Tensor:
    """A matrix after a type, float32; the K-quants see it as one long row."""
    numbers = weight.float().numpy()
    rows = numbers.reshape(-1, blocks.SUPER) if kind in blocks.WRITERS else numbers
    return torch.from_numpy(blocks.rounded(rows, kind).reshape(numbers.shape))


@torch.no_grad()
def round_all(model: Qwen2, folder: Path, kind: str) -> None:
    """Give every matrix of the model its stored weights, rounded; the head is the embedding."""
    stored = read_tensors(read_folder(folder), torch.bfloat16, torch.device("cpu"))
    parameters = dict(model.named_parameters())
    for name, weight in stored:
        if weight.ndim == 2:
            parameters[name].copy_(rounded(weight, kind))


@torch.no_grad()
def perplexity(model: Qwen2, tokenizer: Tokenizer, tokens: int | None = None) -> float:
    """Of the stored text, or of its first tokens."""
    text = (DATA / "06_texts" / "check.txt").read_text(encoding="utf-8")
    ids = torch.tensor([tokenizer.encode(text)[:tokens]])
    return float(F.cross_entropy(model(ids)[0, :-1].float(), ids[0, 1:]).exp())


def main() -> None:
    model, tokenizer = real_model()
    found = {"as stored": perplexity(model, tokenizer)}
    for kind in KINDS:
        round_all(model, Path(source()), kind)
        found[kind] = perplexity(model, tokenizer)
        print(kind, found[kind], flush=True)
    stored = {"source": model.name_or_path, "perplexity": found}
    file = DATA / "10_rounding.json"
    file.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
