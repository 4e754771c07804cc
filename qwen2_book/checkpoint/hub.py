"""A hub's checkpoint as a local folder, from the hub or from the mirror that HF_ENDPOINT names."""

import os
import re
from pathlib import Path

from qwen2_book.errors import CheckpointError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)
CONFIG = ["config.json"]
FILES = ["*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json"]
FILES += ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]


def fetch(repository: str, files: list[str] = FILES) -> Path:
    """Download what is not yet there, weights as safetensors only, and return the folder.

    Raises CheckpointError if the hub cannot be reached or does not have it, with the ways around.
    """
    import huggingface_hub

    endpoint = os.environ.get("HF_ENDPOINT") or None
    try:
        folder = huggingface_hub.snapshot_download(
            repository, allow_patterns=files, ignore_patterns=["*/*"], endpoint=endpoint
        )
        return Path(folder)
    except Exception as error:  # its errors and its transport's have no common base
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{repository}: {endpoint or 'the hub'} does not give it ({type(error).__name__}: "
            f"{reason:.200}). Check the name; where the hub is blocked, set HF_ENDPOINT to a "
            "mirror; or download the files by hand and pass the folder or a .gguf file."
        ) from None
