"""Prefill, then one token at a time: batches, streaming, stop tokens."""

import codecs
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from qwen2_book.cache import KVCache
from qwen2_book.model import Qwen2
from qwen2_book.sampling import GREEDY, Sampler
from qwen2_book.tokenizer import Tokenizer

PREFILL_CHUNK = 2048  # tokens of a prompt taken in at once, so that masks stay small


def generate(
    model: Qwen2,
    token_ids: Int[Tensor, "batch seq"] | Sequence[Sequence[int]],
    max_new_tokens: int = 64,
    sampler: Sampler | None = None,
    stop: Sequence[int] | None = None,
) -> Int[Tensor, "batch steps"]:
    """The new tokens only, the stop token included; rows that are done are filled with the pad id.

    Prompts are a tensor, or lists of different lengths, which are padded on the left. `sampler`
    None is greedy. `stop` None means the checkpoint's own stop tokens, [] none. Ends when all rows
    have stopped or after `max_new_tokens`. Raises ValueError for an empty prompt, an id outside
    the vocabulary, and for logits that are not finite.
    """
    if isinstance(token_ids, Tensor):
        prompts, mask = token_ids, None
    else:
        prompts, mask = pad_left(token_ids, pad_id(model))
    steps = list(_steps(model, prompts, mask, max_new_tokens, sampler, stop))
    return torch.stack(steps, 1) if steps else prompts.new_zeros((len(prompts), 0))


def stream(
    model: Qwen2,
    tokenizer: Tokenizer,
    messages_or_text: str | Sequence[dict[str, Any]],
    max_new_tokens: int = 256,
    sampler: Sampler | None = None,
    stop: Sequence[int] | None = None,
) -> Iterator[str]:
    """The answer piece by piece, as text; no piece ends inside a character.

    A string is continued as it stands; messages go through the chat template. Control tokens are
    left out of the text.
    """
    if isinstance(messages_or_text, str):
        ids = tokenizer.encode(messages_or_text)
    else:
        ids = tokenizer.apply_chat_template(list(messages_or_text))
    control = set(tokenizer.special_ids.values()) | set(stop_ids(model, stop))
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    prompt = torch.tensor([ids], dtype=torch.long)
    for token in _steps(model, prompt, None, max_new_tokens, sampler, stop):
        token_id = int(token[0])
        if token_id in control:
            continue
        if piece := decoder.decode(tokenizer.token_bytes(token_id)):
            yield piece
    if piece := decoder.decode(b"", final=True):
        yield piece


def _steps(
    model: Qwen2,
    prompts: Int[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"] | None,
    max_new_tokens: int,
    sampler: Sampler | None,
    stop: Sequence[int] | None,
) -> Iterator[Int[Tensor, "batch"]]:
    """One new token a row and step, until every row has stopped."""
    model.check(prompts.cpu())
    sampler = sampler or GREEDY
    prompts = prompts.to(model.device)
    mask = None if mask is None else mask.to(model.device)
    batch, length = prompts.shape
    stops = torch.tensor(stop_ids(model, stop), dtype=torch.long, device=model.device)
    capacity = length + max(max_new_tokens, 1)
    cache = KVCache(model.config, batch, capacity, model.device, model.dtype)
    generator = sampler.generator(model.device)
    history = prompts if mask is None else prompts.masked_fill(~mask, -1)
    running = torch.ones(batch, dtype=torch.bool, device=model.device)
    token = prompts
    for step in range(max_new_tokens):
        with torch.no_grad():
            logits = _prefill(model, prompts, mask, cache) if step == 0 else model(token, cache)
            row_logits = logits[:, -1, : model.vocab_limit]
            total = row_logits.sum(dtype=torch.float32)  # finite only if all are: a single pass
            if not bool(total.isfinite()):
                raise ValueError(_not_finite(model, history.clamp(min=0)))
            token = sampler.sample(row_logits, history, generator)
            token = torch.where(running, token, pad_id(model))[:, None]
        yield token[:, 0]
        running = running & ~torch.isin(token[:, 0], stops)
        history = torch.cat((history, token), 1)
        if not bool(running.any()):
            return


def _prefill(model: Qwen2, prompts: Tensor, mask: Tensor | None, cache: KVCache) -> Tensor:
    """Logits (batch, 1, vocab) after the prompt, which the cache then holds."""
    for start in range(0, prompts.shape[1], PREFILL_CHUNK):
        part = slice(start, start + PREFILL_CHUNK)
        part_mask = None if mask is None else mask[:, part]
        logits = model(prompts[:, part], cache, attention_mask=part_mask, last_only=True)
    return logits


def pad_left(
    prompts: Sequence[Sequence[int]], pad: int
) -> tuple[Int[Tensor, "batch seq"], Bool[Tensor, "batch seq"]]:
    """Prompts of different lengths as one tensor, and the mask that tells padding from tokens."""
    lengths = [len(prompt) for prompt in prompts]
    if not prompts or 0 in lengths:
        raise ValueError(
            f"prompts of lengths {lengths}: expected at least one prompt, and at least one token "
            "in each. An empty prompt has no next token: start with <|endoftext|>."
        )
    rows = [[pad] * (max(lengths) - len(prompt)) + list(prompt) for prompt in prompts]
    columns = torch.arange(max(lengths))
    mask = columns >= max(lengths) - torch.tensor(lengths)[:, None]
    return torch.tensor(rows, dtype=torch.long), mask


def stop_ids(model: Qwen2, stop: Sequence[int] | None = None) -> list[int]:
    """The ids that end a text: those given, else the generation settings', else the config's."""
    if stop is None:
        stop = model.generation.get("eos_token_id", model.config.eos_token_id)
    return [] if stop is None else [stop] if isinstance(stop, int) else list(stop)


def pad_id(model: Qwen2) -> int:
    """The id that fills rows: the generation settings', the config's, a stop id, or else 0."""
    for found in (model.generation.get("pad_token_id"), model.config.pad_token_id):
        if found is not None:
            return found
    return next(iter(stop_ids(model)), 0)


def _not_finite(model: Qwen2, token_ids: Tensor) -> str:
    """Which part of the model is the first whose output is not finite."""
    bad: list[str] = []

    def watch(name: str):
        def hook(module, args, output):
            if isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
                bad.append(name)

        return hook

    hooks = [part.register_forward_hook(watch(n)) for n, part in model.named_modules() if n]
    try:
        with torch.no_grad():
            model(token_ids)
    finally:
        for hook in hooks:
            hook.remove()
    return (
        f"the logits are not finite; the first part to go wrong is {bad[0] if bad else 'lm_head'} "
        f"(in {model.dtype}). float16 overflows in this family: use bfloat16 or float32; if it "
        "happens there, too, the checkpoint is damaged."
    )
