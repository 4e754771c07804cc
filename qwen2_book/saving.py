"""Save: a Hugging Face folder, written beside and moved into place."""

import dataclasses
import json
import os
import shutil
import tempfile
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from qwen2_book.checkpoint import layout, safetensors_file
from qwen2_book.errors import CheckpointError
from qwen2_book.model import Qwen2
from qwen2_book.tokenizer import Tokenizer

SHARD_BYTES = 5_000_000_000


def save(model: Qwen2, tokenizer: Tokenizer | None, folder: str | Path) -> None:
    """Write a Hugging Face folder, which `load` and transformers read.

    All is written beside and moved into place at the end: if anything fails (a full disk, say)
    the old files stay whole, and a CheckpointError says so.
    """
    folder = Path(folder)
    beside: str | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        beside = tempfile.mkdtemp(prefix=".saving-", dir=folder)
        _write(model, tokenizer, Path(beside))
        fresh = {file.name for file in Path(beside).iterdir()}
        for name in fresh:  # the library writes files that only their owner may read
            os.chmod(Path(beside) / name, 0o644)
        for name in sorted(fresh, key=lambda name: name == "config.json"):  # which comes last
            os.replace(Path(beside) / name, folder / name)
        for old in [*folder.glob("model*.safetensors"), folder / safetensors_file.INDEX]:
            if old.name not in fresh:
                old.unlink(missing_ok=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder}: could not save ({error}). What was there before is as it was; free some "
            "space, or choose another folder."
        ) from None
    finally:
        if beside:
            shutil.rmtree(beside, ignore_errors=True)


def _write(model: Qwen2, tokenizer: Tokenizer | None, folder: Path) -> None:
    name = str(model.dtype).removeprefix("torch.")
    config = dataclasses.replace(model.config, dtype=name).to_dict()
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    if model.generation:
        text = json.dumps(model.generation, indent=2)
        (folder / "generation_config.json").write_text(text + "\n", "utf-8")
    if tokenizer is not None:
        tokenizer.save(folder)
    state = model.state_dict()
    shards: list[dict[str, Tensor]] = [{}]
    room = SHARD_BYTES
    for tensor_name in layout.shapes(model.config):
        tensor = state[tensor_name].detach().cpu().contiguous()
        if shards[-1] and tensor.nbytes > room:
            shards.append({})
            room = SHARD_BYTES
        shards[-1][tensor_name] = tensor
        room -= tensor.nbytes
    if len(shards) == 1:
        save_file(shards[0], folder / safetensors_file.WEIGHTS, {"format": "pt"})
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / safetensors_file.INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
