"""Load a checkpoint in one way, in a fresh process, and report seconds and peak memory."""

import json
import os
import resource
import sys
import time

import torch

WAYS = ["qwen2_book", "transformers"]


def resident() -> int:
    """The most memory that this process has held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


@torch.no_grad()
def main(way: str, folder: str) -> None:
    prompt = torch.tensor([[9707]])
    if way == "qwen2_book":
        import qwen2_book

        before, began = resident(), time.perf_counter()
        model, _ = qwen2_book.load(folder, device="cpu")
    else:
        import transformers

        transformers.AutoConfig.from_pretrained(folder)  # the lazy imports, not timed
        from transformers import Qwen2ForCausalLM, Qwen2TokenizerFast

        before, began = resident(), time.perf_counter()
        Qwen2TokenizerFast.from_pretrained(folder)
        model = Qwen2ForCausalLM.from_pretrained(folder, dtype="auto").eval()
    loaded = time.perf_counter() - began
    model(prompt)
    first = time.perf_counter() - began
    weights = os.path.getsize(os.path.join(folder, "model.safetensors"))
    peak = (resident() - before) / weights
    print(json.dumps({"load_s": loaded, "first_token_s": first, "peak_over_weights": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
