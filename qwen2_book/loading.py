"""Load: where checkpoint, tokenizer and model meet."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from qwen2_book.checkpoint import gguf_weights, hub, layout, safetensors_file
from qwen2_book.config import Qwen2Config
from qwen2_book.config_checks import DTYPES, read_json
from qwen2_book.errors import CheckpointError
from qwen2_book.model import Qwen2
from qwen2_book.tokenizer import Tokenizer

TINY = Path(__file__).parent / "assets" / "tiny"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

Source = str | Path | None


def load(
    source: Source = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
) -> tuple[Qwen2, Tokenizer | None]:
    """A checkpoint's model, in eval mode, and its tokenizer (None where there is none).

    source: None for the tiny checkpoint in the package, a folder, a .gguf file or a hub id.
    device "auto" is cuda, else mps, else cpu; dtype "auto" is the one stored (bfloat16 for GGUF).
    Safetensors are mapped, not copied. Raises CheckpointError, ConfigError or TokenizerError.
    """
    path = locate(source)
    tokenizer: Tokenizer | None
    if path.is_file():
        model, tokenizer = _load_gguf(path, pick_device(device), pick_dtype(dtype))
    else:
        model, tokenizer = _load_folder(path, pick_device(device), pick_dtype(dtype))
    model.name_or_path = "tiny" if source is None else str(source).rstrip("/").split("/")[-1]
    if tokenizer is not None:
        rows = model.config.vocab_size
        if len(tokenizer) > rows:
            raise CheckpointError(
                f"{path}: the tokenizer has {len(tokenizer):,} tokens, the embedding {rows:,} "
                "rows. Do tokenizer and weights belong together?"
            )
        model.vocab_limit = len(tokenizer)
    return model.eval(), tokenizer


def config_of(source: Source) -> tuple[Qwen2Config, str]:
    """A checkpoint's configuration, and which file it was read from; no weights are read."""
    path = locate(source)
    if path.is_file():
        return gguf_weights.read_config(path)[0], str(path)
    return Qwen2Config.from_file(path), str(path / "config.json")


def locate(source: Source) -> Path:
    """The checkpoint folder or .gguf file that a source names; hub ids are fetched."""
    if source is None:
        return TINY
    path = Path(source).expanduser()
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{str(source)!r:.120} is not a usable path ({error}).") from None
    if path.suffix in PICKLES and is_file:
        raise CheckpointError(_pickle(path))
    if is_file and path.suffix == ".gguf":
        return path
    if is_file:
        raise CheckpointError(f"{path}: expected a folder, a .gguf file or a hub id.")
    if is_folder:
        return _choose(path)
    if hub.HUB_ID.fullmatch(str(source)):
        return hub.fetch(str(source))
    raise CheckpointError(
        f"{str(source)!r:.200} is neither a folder, nor a .gguf file, nor a hub id such as "
        "'Qwen/Qwen2-0.5B-Instruct'. Check the path."
    )


def _choose(folder: Path) -> Path:
    """What to load from a folder: its safetensors, else its one GGUF file; never a pickle."""
    if any(folder.glob("*.safetensors")) or (folder / safetensors_file.INDEX).is_file():
        return folder
    files = sorted(folder.glob("*.gguf"))
    if len(files) == 1:
        return files[0]
    if files:
        names = [file.name for file in files]
        raise CheckpointError(f"{folder} holds {names}: pass the path of the one you want.")
    for file in sorted(folder.iterdir()):
        if file.suffix in PICKLES:
            raise CheckpointError(_pickle(file))
    raise CheckpointError(
        f"{folder} holds no weights: expected {safetensors_file.WEIGHTS}, its index and shards, or "
        "a .gguf file."
    )


def _pickle(file: Path) -> str:
    return (
        f"{file} is a pickle, which can run any code when it is opened: refused. Take the "
        "checkpoint's safetensors or GGUF file, or convert it where you trust it."
    )


def pick_device(device: str | torch.device) -> torch.device:
    """The device of that name; `auto` is the best there is."""
    if device == "auto":
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        return torch.device(device)
    except RuntimeError:
        raise ValueError(f"device: found {device!r}, expected auto, cpu, mps or cuda.") from None


def pick_dtype(dtype: str | torch.dtype) -> torch.dtype | None:
    """The dtype of that name; None for `auto`, the one stored."""
    name = str(dtype).removeprefix("torch.")
    if name not in (*DTYPES, "auto"):
        raise ValueError(f"dtype: found {dtype!r}, expected auto, {', '.join(DTYPES)}.")
    return None if name == "auto" else getattr(torch, name)


def _load_folder(
    folder: Path, device: torch.device, dtype: torch.dtype | None
) -> tuple[Qwen2, Tokenizer | None]:
    config = Qwen2Config.from_file(folder)
    entries = safetensors_file.read_folder(folder)
    layout.check({name: e.shape for name, e in entries.items()}, config, str(folder))
    settings = folder / "generation_config.json"
    generation = _generation(settings) if settings.is_file() else {}
    tokenizer = Tokenizer.from_file(folder) if (folder / "tokenizer.json").is_file() else None
    wanted = layout.shapes(config)
    stored = entries["model.embed_tokens.weight"].dtype
    mapped = safetensors_file.map_tensors({name: entries[name] for name in wanted})
    weights = {n: mapped.pop(n).to(device, dtype or stored) for n in wanted}
    return _build(config, weights, generation, dtype or stored), tokenizer


def _load_gguf(
    path: Path, device: torch.device, dtype: torch.dtype | None
) -> tuple[Qwen2, Tokenizer]:
    config, tensors = gguf_weights.read_config(path)
    listed = [pair for tensor in tensors.values() for pair in gguf_weights.names_of(tensor)]
    layout.check(dict(listed), config, str(path))
    gguf_weights.check_data(path, tensors)
    tokenizer = Tokenizer.from_file(path)
    dtype = dtype or torch.bfloat16
    weights: dict[str, Tensor] = {}
    parts = gguf_weights.read_tensors(path, tensors, dtype)
    console = Console(stderr=True)
    for part in track(
        parts, f"dequantising {path.name}", len(tensors), transient=True, console=console
    ):
        weights |= {name: tensor.to(device) for name, tensor in part.items()}
    eos = config.eos_token_id
    return _build(config, weights, {} if eos is None else {"eos_token_id": [eos]}, dtype), tokenizer


def _build(
    config: Qwen2Config, weights: dict[str, Tensor], generation: dict, dtype: torch.dtype
) -> Qwen2:
    with torch.device("meta"), _without_random_numbers():
        model = Qwen2(dataclasses.replace(config, dtype=str(dtype).removeprefix("torch.")))
    if config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights, assign=True)
    model.generation = generation
    return model


@contextmanager
def _without_random_numbers() -> Iterator[None]:
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
    kinds: dict[str, tuple[type, ...]] = {"temperature": (int, float), "top_p": (int, float)}
    kinds |= {"repetition_penalty": (int, float)}
    kinds |= {"top_k": (int,), "pad_token_id": (int,), "eos_token_id": (int, list)}
    for name, kind in (kinds | {"do_sample": (bool,)}).items():
        found = values.get(name)
        ids = found if isinstance(found, list) else [0]
        bad = not isinstance(found, kind) or (isinstance(found, bool) and kind != (bool,))
        if found is not None and (bad or not all(type(i) is int and 0 <= i < 1 << 32 for i in ids)):
            raise CheckpointError(f"{file}: {name}: found {found!r:.60}; correct or remove it.")
    return values
