"""Save: a Hugging Face folder, written beside and moved into place."""

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path

from safetensors import SafetensorError

from qwen2_book.checkpoint import layout, safetensors_file
from qwen2_book.checkpoint.files import REPLACED, move_into_place, sync
from qwen2_book.errors import CheckpointError
from qwen2_book.model import Qwen2
from qwen2_book.tokenizer import Tokenizer

SETTINGS = "generation_config.json"
SHARD_BYTES = 5_000_000_000


def save(model: Qwen2, tokenizer: Tokenizer | None, folder: str | Path) -> None:
    """Write a Hugging Face folder, which `load` and transformers read.

    All is written beside and moved into place at the end: if anything fails (a full disk, say)
    the old files stay whole, and a CheckpointError says so. Should the machine stop while files
    are moved, the old ones are in the folder's `.saving-…/replaced`. Other files are left alone.
    """
    folder = Path(folder)
    beside: Path | None = None
    try:
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".saving-", dir=folder))
        _write(model, tokenizer, beside)
        shards = [f.name for f in folder.iterdir() if safetensors_file.SHARD.fullmatch(f.name)]
        old = [safetensors_file.WEIGHTS, safetensors_file.INDEX, SETTINGS, *shards]
        move_into_place(beside, folder, old, last="config.json")
        made = False
    except (OSError, SafetensorError, RuntimeError, MemoryError) as error:
        raise CheckpointError(
            f"{folder}: could not save ({error}). What was there before is as it was; free some "
            "space, or choose another folder."
        ) from error
    finally:
        if beside and not any((beside / REPLACED).glob("*")):
            shutil.rmtree(beside, ignore_errors=True)
            if made and not any(folder.iterdir()):
                folder.rmdir()


def _write(model: Qwen2, tokenizer: Tokenizer | None, folder: Path) -> None:
    name = str(model.dtype).removeprefix("torch.")
    texts = {"config.json": dataclasses.replace(model.config, dtype=name).to_dict()}
    if model.generation:
        texts[SETTINGS] = model.generation
    for file, values in texts.items():
        (folder / file).write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    if tokenizer is not None:
        tokenizer.save(folder)
    for written in folder.iterdir():
        sync(written)
    state = model.state_dict()
    tensors = {name: state[name] for name in layout.shapes(model.config)}
    safetensors_file.write_folder(tensors, folder, SHARD_BYTES)
