"""Store rows of real weights for the figure of blocks: `python tools/weight_rows.py`.

Needs QWEN2_BOOK_CHECKPOINT and the GGUF file beside it, from which the rows are dequantised:
numbers of tensors stored as Q8_0, fine enough to stand for the weights before rounding. Written to
`qwen2_book/widgets/weight_block.json`.
"""

import json
from pathlib import Path

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from real_model import source

from qwen2_book.checkpoint import blocks
from qwen2_book.gguf_file import read_head
from qwen2_book.widgets import weight_block

ROWS = [
    ("output.weight", 9707, "head, “Hello”"),
    ("output.weight", 113012, "head, “不仅如此”"),
    ("blk.8.attn_v.weight", 105, "values, layer 8"),
]


def row(path: Path, name: str, number: int) -> np.ndarray:
    """One row of a tensor in a GGUF file, dequantised."""
    tensor = read_head(path)[1][name]
    kind = GGMLQuantizationType(tensor.kind)
    weights, size = GGML_QUANT_SIZES[kind]
    length = tensor.shape[-1] // weights * size
    raw = np.fromfile(path, np.uint8, length, offset=tensor.start + number * length)
    return blocks.read(raw[None], kind.name)[0]


def main() -> None:
    folder = Path(source())
    (path,) = folder.glob("*.gguf")
    rows = [
        {"name": name, "tensor": tensor, "row": number, "weights": weight_block.pack(found)}
        for tensor, number, name in ROWS
        for found in [row(path, tensor, number)[: weight_block.LENGTH]]
    ]
    stored = {"source": folder.name, "rows": rows}
    text = json.dumps(stored, ensure_ascii=False, separators=(",", ":"))
    weight_block.STORED.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
