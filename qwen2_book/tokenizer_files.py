"""A tokenizer's files: `tokenizer.json`, `tokenizer_config.json` and the metadata of a GGUF."""

import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qwen2_book import bpe
from qwen2_book.config_checks import read_json
from qwen2_book.errors import CheckpointError, TokenizerError
from qwen2_book.gguf_file import read_head

MAX_ID = 1 << 22
MAX_BYTES = 64 << 20
MAX_TEMPLATE_BYTES = 1 << 18
MAX_ADDED, MAX_ADDED_LENGTH = 1024, 256
GGUF_KINDS = {"normal": 1, "control": 3, "user-defined": 4}

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False}
BYTE_LEVEL |= {"use_regex": False}
SPLIT = {"type": "Split", "pattern": {"Regex": bpe.PATTERN}, "behavior": "Isolated"}
PRE_TOKENIZER = {"type": "Sequence", "pretokenizers": [SPLIT | {"invert": False}, BYTE_LEVEL]}


def check_vocabulary(vocab: Any, merges: Sequence[tuple[str, str]], added: Any) -> None:
    """Refuse a vocabulary that cannot encode every text, or whose ids clash."""
    for name, part in (("vocab", vocab), ("added_tokens", added)):
        if not isinstance(part, dict) or not _are_ids(part):
            expected = f"non-empty tokens with ids from 0 to {MAX_ID - 1:,}"
            raise TokenizerError(f"{name}: expected an object of {expected}.")
    if len(added) > MAX_ADDED or any(len(token) > MAX_ADDED_LENGTH for token in added):
        limits = f"{MAX_ADDED:,} tokens of at most {MAX_ADDED_LENGTH} characters"
        raise TokenizerError(f"added_tokens: found {len(added):,}, expected up to {limits}.")
    if twice := next((token for token, i in added.items() if vocab.get(token, i) != i), None):
        raise TokenizerError(f"added_tokens: {twice!r:.60} has another id in the vocabulary.")
    known = set(bpe.BYTE_OF_CHARACTER)
    if missing := known - vocab.keys():
        raise TokenizerError(f"vocab: {len(missing)} of the 256 single bytes are missing.")
    if not known.issuperset("".join(vocab)):
        strange = next(token for token in vocab if not known.issuperset(token))
        raise TokenizerError(f"vocab: {strange!r:.60} is not written in byte characters.")
    ids = [*vocab.values(), *(i for token, i in added.items() if vocab.get(token) != i)]
    if len(set(ids)) != len(ids):
        raise TokenizerError("vocab: two tokens have the same id.")
    used = itertools.chain(itertools.chain.from_iterable(merges), map("".join, merges))
    if not all(map(vocab.__contains__, used)):
        missed = (m for m in merges if not all(t in vocab for t in m) or "".join(m) not in vocab)
        raise TokenizerError(
            f"merges: {next(missed)!r:.80} joins or makes a token that is not in the vocabulary."
        )


def _are_ids(part: dict[Any, Any]) -> bool:
    """Whether all keys are tokens and all values ids (whole columns at once: there are 150,000)."""
    return not part or (
        {*map(type, part)} == {str}
        and "" not in part
        and {*map(type, part.values())} == {int}
        and 0 <= min(part.values()) <= max(part.values()) < MAX_ID
    )


def parts_of_json(values: Any) -> dict[str, Any]:
    """Vocabulary, merges and added tokens of a `tokenizer.json`; refuses other kinds."""
    model = _field(values, "model", dict)
    expected = {"type": "BPE", "unk_token": None, "dropout": None, "byte_fallback": False}
    expected |= {"ignore_merges": False, "continuing_subword_prefix": None}
    for key, wanted in (expected | {"end_of_word_suffix": None}).items():
        found = model.get(key, wanted)
        if found != wanted and (found or wanted):  # "" and null both mean none
            raise TokenizerError(f"model.{key}: found {found!r:.60}, expected {wanted!r}.")
    if values.get("normalizer") != {"type": "NFC"}:
        raise TokenizerError(f"normalizer: found {values.get('normalizer')!r:.80}, expected NFC.")
    steps = _field(_field(values, "pre_tokenizer", dict), "pretokenizers", list)
    kinds = [step.get("type") for step in steps if isinstance(step, dict)]
    if kinds != ["Split", "ByteLevel"] or steps[0].get("pattern") != {"Regex": bpe.PATTERN}:
        raise TokenizerError(
            f"pre_tokenizer: found {kinds!r:.80}, expected Qwen2's Split and ByteLevel. Other "
            "patterns are refused, since one that a stranger wrote can run for ever."
        )
    if (
        steps[0].get("behavior") != "Isolated"
        or steps[0].get("invert")
        or any(steps[1].get(key, True) for key in ("add_prefix_space", "use_regex"))
    ):
        raise TokenizerError("pre_tokenizer: expected Isolated pieces and no prefix space.")
    after = values.get("post_processor")
    if after is not None and not _adds_nothing(_field(values, "post_processor", dict)):
        raise TokenizerError(
            f"post_processor: found {after!r:.80}, expected one that adds no tokens, as Qwen2's."
        )
    merges = _field(model, "merges", list)
    pairs = [m.split(" ") if isinstance(m, str) else m for m in merges]
    if not _are_pairs(pairs):
        wrong = next(m for m, pair in zip(merges, pairs, strict=True) if not _are_pairs([pair]))
        raise TokenizerError(f"model.merges: found {wrong!r:.60}, expected two tokens.")
    added, special = {}, []
    for token in _field(values, "added_tokens", list) if values.get("added_tokens") else []:
        content, number = _field(token, "content", str), _field(token, "id", int)
        if any(token.get(key) for key in ("single_word", "lstrip", "rstrip", "normalized")):
            raise TokenizerError(
                f"added_tokens: {content!r:.60} strips, normalises or wants a single word; Qwen2's "
                "added tokens do none of these."
            )
        added[content] = number
        special += [content] if token.get("special") else []
    vocab = _field(model, "vocab", dict)
    return {"vocab": vocab, "merges": [*map(tuple, pairs)], "added": added, "special": special}


def _are_pairs(found: list[Any]) -> bool:
    """Whether all are lists of two texts."""
    lists = not {*map(type, found)} - {list} and not {*map(len, found)} - {2}
    return lists and not {*map(type, itertools.chain.from_iterable(found))} - {str}


def template_beside(folder: Path) -> str | None:
    """The chat template of a checkpoint folder, from its own file or from the configuration."""
    own, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    try:
        if own.is_file():
            if (size := own.stat().st_size) > MAX_TEMPLATE_BYTES:
                expected = f"expected at most {MAX_TEMPLATE_BYTES:,}"
                raise TokenizerError(f"{own}: {size:,} bytes, {expected}.")
            return own.read_text("utf-8")
    except TokenizerError:
        raise
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{own} is not readable text ({error}).") from None
    if not config.is_file():
        return None
    values = read_json(config, TokenizerError, MAX_BYTES)
    if not isinstance(values, dict):
        raise TokenizerError(f"{config}: expected a JSON object.")
    template = values.get("chat_template")
    if isinstance(template, list):  # several named ones
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    if template is not None and not isinstance(template, str):
        raise TokenizerError(f"{config}: chat_template: found {template!r:.60}, expected text.")
    return template


def parts_of_gguf(path: Path) -> dict[str, Any]:
    """The same parts, and the chat template, from a GGUF file's metadata."""
    try:
        metadata, _ = read_head(path)
    except CheckpointError as error:
        raise TokenizerError(str(error)) from None
    model, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    if (model, pre) != ("gpt2", "qwen2"):
        raise TokenizerError(
            f"{path}: tokenizer.ggml.model and .pre: found {model!r} and {pre!r}, expected 'gpt2' "
            "and 'qwen2'."
        )
    tokens, kinds = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    numbered = [*enumerate(zip(tokens, kinds, strict=True))]
    vocab = {token: i for i, (token, kind) in numbered if kind == GGUF_KINDS["normal"]}
    added = {
        token: i
        for i, (token, kind) in numbered
        if kind in (GGUF_KINDS["control"], GGUF_KINDS["user-defined"])
    }
    special = [token for i, (token, kind) in numbered if kind == GGUF_KINDS["control"]]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    if bad := next((pair for pair in merges if len(pair) != 2), None):
        raise TokenizerError(f"{path}: tokenizer.ggml.merges: found {bad!r:.60}.")
    parts = {"vocab": vocab, "merges": merges, "added": added, "special": special}
    template = metadata.get("tokenizer.chat_template")
    if template is not None and not isinstance(template, str):
        raise TokenizerError(f"{path}: tokenizer.chat_template: found {template!r:.60}.")
    return parts | {"chat_template": template}


def write_files(
    path: Path,
    vocab: dict[str, int],
    merges: Sequence[tuple[str, str]],
    added: dict[str, int],
    special: Sequence[str],
    chat_template: str,
) -> None:
    """Write both files as the `tokenizers` library and transformers read them.

    `path` is a folder or the tokenizer's own `.json` file. Each file is written beside its old
    version and then moved into its place.
    """
    file = path if path.suffix == ".json" else path / "tokenizer.json"
    folder = file.parent
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokens = [
        {"id": i, "content": token, "special": token in special} | flags
        for token, i in sorted(added.items(), key=lambda item: item[1])
    ]
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "fuse_unk": False,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": vocab,
        "merges": [list(pair) for pair in merges],
    }
    whole = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": tokens,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": PRE_TOKENIZER,
        "post_processor": None,
        "decoder": BYTE_LEVEL,
        "model": model,
    }
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": "<|im_end|>" if "<|im_end|>" in added else None,
        "pad_token": "<|endoftext|>" if "<|endoftext|>" in added else None,
        "unk_token": None,
        "errors": "replace",
        "split_special_tokens": False,
        "chat_template": chat_template,
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in ((file.name, whole), ("tokenizer_config.json", config)):
        part = folder / f".{name}.part"
        part.write_text(json.dumps(value, ensure_ascii=False) + "\n", "utf-8")
        os.replace(part, folder / name)


def _adds_nothing(processor: dict[str, Any]) -> bool:
    """`ByteLevel`, which only moves offsets, or the empty template that transformers 5 writes."""
    if processor.get("type") == "TemplateProcessing":
        single = processor.get("single")
        return isinstance(single, list) and all(
            isinstance(step, dict) and step.keys() == {"Sequence"} for step in single
        )
    return processor.get("type") == "ByteLevel"


def _field(values: Any, name: str, kind: type) -> Any:
    found = values.get(name) if isinstance(values, dict) else None
    if not isinstance(found, kind) or isinstance(found, bool):
        raise TokenizerError(f"{name}: found {found!r:.60}, expected {kind.__name__}.")
    return found
