"""Load: where checkpoint, tokenizer and model meet."""

import dataclasses
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qwen2_book.checkpoint import gguf_weights, hub, layout, safetensors_file
from qwen2_book.checkpoint.files import inside
from qwen2_book.checkpoint.source import Source, locate
from qwen2_book.config import Qwen2Config
from qwen2_book.config_checks import DTYPES, read_json
from qwen2_book.errors import CheckpointError
from qwen2_book.model import Qwen2
from qwen2_book.progress import shown
from qwen2_book.quantize import PACKED, optimize
from qwen2_book.tokenizer import Tokenizer

SETTINGS = "generation_config.json"
SMALL_FILES = [SETTINGS, "config.json", "tokenizer.json", "tokenizer_config.json"]
SMALL_FILES += ["chat_template.jinja"]


def load(
    source: Source = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    quantize: str | None = None,
) -> tuple[Qwen2, Tokenizer | None]:
    """A checkpoint's model, in eval mode, and its tokenizer (None where there is none).

    source: None for the tiny checkpoint in the package, a folder, a .gguf file or a hub id.
    device "auto" is cuda, else mps, else cpu; dtype "auto" is the one stored (bfloat16 for GGUF).
    Safetensors are mapped, not copied. quantize "int8" or "int4": see `optimize`; on the CPU only.
    Raises CheckpointError, ConfigError or TokenizerError.
    """
    if quantize not in (*PACKED, None):
        raise ValueError(f"quantize: found {quantize!r}, expected None, int8 or int4.")
    target, kind = pick_device(device), pick_dtype(dtype)
    if quantize and target.type != "cpu":
        raise ValueError(
            f"quantize={quantize!r}: packed weights run on the CPU, not on {target}. Load with "
            "device='cpu', or without quantize."
        )
    path = locate(source)
    try:
        open_it = _load_gguf if path.is_file() else _load_folder
        model, tokenizer = open_it(path, target, kind)
    except (OSError, MemoryError) as error:
        raise CheckpointError(f"{path} could not be read: {error or 'out of memory'}.") from error
    model.name_or_path = "tiny" if source is None else str(source).rstrip("/").split("/")[-1]
    if tokenizer is not None:
        model.vocab_limit = len(tokenizer)
    model = optimize(model.eval(), quantize) if quantize else model.eval()
    return model, tokenizer


def config_of(source: Source) -> tuple[Qwen2Config, str]:
    """A checkpoint's configuration, and which file it was read from; no weights are read."""
    path = locate(source, hub.CONFIG)
    if path.is_file():
        return gguf_weights.read_config(path)[0], str(path)
    _check_links(path)
    return Qwen2Config.from_file(path), str(path / "config.json")


def pick_device(device: str | torch.device) -> torch.device:
    """The device of that name, which must be there; `auto` is the best there is."""
    here = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": 0, "meta": 1}
    here["mps"] = int(torch.backends.mps.is_available())
    if device == "auto":
        device = next(name for name in ("cuda", "mps", "cpu") if here[name])
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device: found {device!r}, expected auto, cpu, mps or cuda.") from None
    if (found.index or 0) >= here.get(found.type, 1):
        raise ValueError(
            f"device: found {device!r}, which this PyTorch does not see here. Use 'auto' or 'cpu'."
        )
    return found


def pick_dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """The dtype of that name; None for `auto`, the one stored."""
    name = str(dtype).removeprefix("torch.")
    if name not in (*DTYPES, "auto"):
        raise ValueError(f"dtype: found {dtype!r}, expected auto, {', '.join(DTYPES)}.")
    return None if name == "auto" else getattr(torch, name)


def _load_folder(
    folder: Path, device: torch.device, dtype: torch.dtype | None
) -> tuple[Qwen2, Tokenizer | None]:
    _check_links(folder)
    config = Qwen2Config.from_file(folder)
    entries = safetensors_file.read_folder(folder)
    layout.check({name: e.shape for name, e in entries.items()}, config, str(folder))
    generation = _generation(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    tokenizer = _tokenizer(folder, config) if (folder / "tokenizer.json").is_file() else None
    wanted = {name: entries[name] for name in layout.shapes(config)}
    dtype = dtype or entries["model.embed_tokens.weight"].dtype
    converted = sum(e.end - e.start for e in wanted.values() if e.dtype != dtype)
    if device.type != "cpu":
        converted = sum(e.end - e.start for e in wanted.values())
    parts = safetensors_file.read_tensors(wanted, dtype, device)
    weights = dict(shown(parts, len(wanted), "reading the weights", converted))
    return _build(config, weights, generation, dtype), tokenizer


def _load_gguf(
    path: Path, device: torch.device, dtype: torch.dtype | None
) -> tuple[Qwen2, Tokenizer | None]:
    config, metadata, tensors = gguf_weights.read_config(path)
    listed = [pair for tensor in tensors.values() for pair in gguf_weights.names_of(tensor)]
    layout.check(dict(listed), config, str(path))
    gguf_weights.check_data(path, tensors)
    generation = gguf_weights.generation_of(metadata)
    tokenizer = _tokenizer(path, config) if "tokenizer.ggml.model" in metadata else None
    del metadata
    dtype = dtype or torch.bfloat16
    weights: dict[str, Tensor] = {}
    parts = gguf_weights.read_tensors(path, tensors, dtype)
    size = path.stat().st_size
    for part in shown(parts, len(tensors), f"dequantising {path.name}", size):
        weights |= {name: tensor.to(device) for name, tensor in part.items()}
    return _build(config, weights, generation, dtype), tokenizer


def _check_links(folder: Path) -> None:
    for name in SMALL_FILES:
        if os.path.lexists(folder / name):
            inside(folder, name)


def _tokenizer(path: Path, config: Qwen2Config) -> Tokenizer:
    """The tokenizer, which must not know more tokens than the embedding has rows."""
    tokenizer = Tokenizer.from_file(path)
    if len(tokenizer) > config.vocab_size:
        raise CheckpointError(
            f"{path}: the tokenizer has {len(tokenizer):,} tokens, the embedding "
            f"{config.vocab_size:,} rows. Do tokenizer and weights belong together?"
        )
    return tokenizer


def _build(
    config: Qwen2Config, weights: dict[str, Tensor], generation: dict, dtype: torch.dtype
) -> Qwen2:
    with torch.device("meta"), without_random_numbers():
        model = Qwen2(dataclasses.replace(config, dtype=str(dtype).removeprefix("torch.")))
    if config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights, assign=True)
    model.generation = generation
    return model


@contextmanager
def without_random_numbers() -> Iterator[None]:
    """Layers made inside draw no initial weights, which would be thrown away: saves a second."""
    kinds: tuple[Any, ...] = (torch.nn.Linear, torch.nn.Embedding)
    before = [kind.reset_parameters for kind in kinds]
    try:
        for kind in kinds:
            kind.reset_parameters = lambda self: None
        yield
    finally:
        for kind, reset in zip(kinds, before, strict=True):
            kind.reset_parameters = reset


def _generation(file: Path) -> dict[str, Any]:
    """The checkpoint's generation settings, with the fields that are used checked."""
    values = read_json(file, CheckpointError, 1 << 20)
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: expected a JSON object.")
    values = {name: value for name, value in values.items() if value is not None}
    kinds: dict[str, tuple[type, ...]] = {"temperature": (int, float), "top_p": (int, float)}
    kinds |= {"repetition_penalty": (int, float)}
    kinds |= {"top_k": (int,), "pad_token_id": (int,), "eos_token_id": (int, list)}
    for name, kind in (kinds | {"do_sample": (bool,)}).items():
        found = values.get(name, kind[0]())
        bad = not isinstance(found, kind) or (isinstance(found, bool) and kind != (bool,))
        ids = found if isinstance(found, list) else [0]
        bad = bad or (isinstance(found, float) and not math.isfinite(found))
        if bad or not all(type(i) is int and 0 <= i < 1 << 32 for i in ids):
            raise CheckpointError(f"{file}: {name}: found {found!r:.60}; correct or remove it.")
    return values
