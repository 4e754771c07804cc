"""Qwen2's tokenizer: text to ids and back, read from a checkpoint or trained here."""

import gc
import operator
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import regex

from qwen2_book import bpe, chat
from qwen2_book import tokenizer_files as files
from qwen2_book.config_checks import read_json
from qwen2_book.errors import TokenizerError

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

Backend = Literal["library", "python"]


class Tokenizer:
    """Byte-level BPE with Qwen2's splitting: no unknown token, no token added at either end.

    `vocab` maps tokens, their bytes written as visible characters, to ids; `merges` are in the
    order of their rank; `added` maps the added tokens to ids, and `special_ids` those of them
    that are control tokens. The length is the highest id plus one. With the `library` backend
    ordinary text is encoded by the `tokenizers` library, with `python` by `qwen2_book.bpe`.
    """

    def __init__(
        self,
        vocab: dict[str, int],
        merges: Sequence[tuple[str, str]],
        added: dict[str, int],
        special: Iterable[str] | None = None,
        chat_template: str | None = None,
        backend: Backend = "library",
    ) -> None:
        files.check_vocabulary(vocab, merges, added)
        if backend not in ("library", "python"):
            raise TokenizerError(f"backend: found {backend!r}, expected 'library' or 'python'.")
        self.vocab, self.merges, self.added = vocab, list(merges), added
        names = added if special is None else special
        self.special_ids = {name: added[name] for name in names}
        self.chat_template = chat_template
        self.backend = backend
        self._length = max(*vocab.values(), *added.values()) + 1
        longest_first = sorted(added, key=len, reverse=True)
        self._control = regex.compile("|".join(map(regex.escape, longest_first)) or r"(?!)")
        self._encode = self._library() if backend == "library" else self._python()

    def __len__(self) -> int:
        return self._length

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        table = bpe.BYTE_OF_CHARACTER
        found = {i: bytes(map(table.__getitem__, token)) for token, i in self.vocab.items()}
        return found | {i: token.encode() for token, i in self.added.items()}

    @cached_property
    def _names(self) -> dict[int, str]:
        return {i: token for token, i in (self.vocab | self.added).items()}

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Ids of a text; what spells a control token stays text unless `allow_special`.

        Raises TokenizerError for a lone surrogate, which is half a character and has no bytes.
        """
        text = _checked(text)
        if not allow_special:
            return self._encode(text)
        ids: list[int] = []
        start = 0
        for found in self._control.finditer(text):
            ids += self._encode(text[start : found.start()])
            ids.append(self.added[found.group()])
            start = found.end()
        return ids + self._encode(text[start:])

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of ids; bytes that are no UTF-8 become U+FFFD, unused ids nothing."""
        skipped = set(self.special_ids.values()) if skip_special else set()
        found = (self._bytes.get(i, b"") for i in _each_id(ids) if i not in skipped)
        return b"".join(found).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that an id stands for; none for an unused id."""
        (number,) = _each_id([token_id])
        return self._bytes.get(number, b"")

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as files spell it (`Ġthe`, `<|im_end|>`), or None."""
        return self.added.get(token, self.vocab.get(token))

    def id_to_token(self, token_id: int) -> str | None:
        """The token of an id as files spell it, or None for an unused id."""
        (number,) = _each_id([token_id])
        return self._names.get(number)

    def tokens(self, text: str) -> list[str]:
        """The pieces that a text is encoded to."""
        return self.pieces(self.encode(text))

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Each id's text by itself, for labels; part of a character shows as U+FFFD."""
        return [self.token_bytes(i).decode(errors="replace") for i in ids]

    def apply_chat_template(
        self,
        messages: Sequence[chat.Message],
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
    ) -> list[int]:
        """Ids of a conversation: the template's control tokens are control tokens, text is text.

        `messages` are dicts with `role` and `content`. Text is encoded across the borders of
        messages, as in training: `user\\n` before `\\nHi` gives one token for both line ends.
        """
        text, mark = chat.render(
            messages, self.chat_template, self.added or SPECIAL, tools, add_generation_prompt
        )
        ids: list[int] = []
        start = 0
        for found in self._control.finditer(text):
            ids += self.encode(text[start : found.start()].replace(mark, ""))
            ids.append(self.added[found.group()])
            start = found.end()
        return ids + self.encode(text[start:].replace(mark, ""))

    def render_chat(
        self,
        messages: Sequence[chat.Message],
        tools: Sequence[Any] | None = None,
        add_generation_prompt: bool = True,
    ) -> str:
        """The conversation as text, to look at: what a message spells is not told apart in it."""
        control = self.added or SPECIAL
        text, mark = chat.render(
            messages, self.chat_template, control, tools, add_generation_prompt
        )
        return text.replace(mark, "")

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        special_tokens: Sequence[str] = SPECIAL,
        backend: Backend = "library",
    ) -> "Tokenizer":
        """Learn a vocabulary of at most `vocab_size` tokens: 256 bytes, merges, special tokens."""
        room = vocab_size - 256 - len(special_tokens)
        if room < 0:
            raise TokenizerError(
                f"vocab_size: found {vocab_size}, expected at least {256 + len(special_tokens)}: "
                "the bytes and the special tokens."
            )
        merges = bpe.train(map(_checked, texts), room)
        tokens = [*bpe.CHARACTER_OF_BYTE.values(), *("".join(pair) for pair in merges)]
        vocab: dict[str, int] = {}
        for token in tokens:
            vocab.setdefault(token, len(vocab))
        added = {token: len(vocab) + i for i, token in enumerate(special_tokens)}
        return cls(vocab, merges, added, backend=backend)

    @classmethod
    def from_file(cls, path: str | Path, backend: Backend = "library") -> "Tokenizer":
        """Read a checkpoint folder, a `tokenizer.json` or a `.gguf` file.

        Whatever is wrong with it ends in a TokenizerError that names the file and the field.
        """
        path, collecting = Path(path), gc.isenabled()
        gc.disable()  # it would look through hundreds of thousands of new strings, again and again
        try:
            if path.suffix == ".gguf":
                return cls(**files.parts_of_gguf(path), backend=backend)
            file = path / "tokenizer.json" if path.is_dir() else path
            parts = files.parts_of_json(read_json(file, TokenizerError, files.MAX_BYTES))
            parts["chat_template"] = files.template_beside(file.parent)
            return cls(**parts, backend=backend)
        except TokenizerError as error:
            named = str(error) if str(path) in str(error) else f"{path}: {error}"
            raise TokenizerError(named) from None
        except ImportError:
            raise
        except Exception as error:  # the `tokenizers` library raises no named errors
            raise TokenizerError(
                f"{path}: {type(error).__name__}: {error}; expected a Qwen2 tokenizer. Fetch the "
                "file again."
            ) from None
        finally:
            if collecting:
                gc.enable()

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` as transformers reads them.

        `path` is a folder, or the `.json` file to write; the configuration lies beside it.
        """
        template = self.chat_template or chat.QWEN2_TEMPLATE
        special = list(self.special_ids)
        files.write_files(Path(path), self.vocab, self.merges, self.added, special, template)

    def _python(self):
        ranks = {pair: rank for rank, pair in enumerate(self.merges)}

        @lru_cache(maxsize=1 << 16)
        def ids_of(word: str) -> tuple[int, ...]:
            return tuple(self.vocab[token] for token in bpe.merge(word, ranks))

        return lambda text: [i for word in bpe.words(text) for i in ids_of(word)]

    def _library(self):
        from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

        fast = Tokenizer(models.BPE(vocab=self.vocab, merges=self.merges))
        fast.normalizer = normalizers.NFC()
        fast.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(bpe.PATTERN), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        fast.decoder = decoders.ByteLevel()
        return lambda text: fast.encode(text, add_special_tokens=False).ids


def _checked(text: str) -> str:
    """The text itself, if it is one and has bytes."""
    if not isinstance(text, str):
        raise TokenizerError(f"text: found {type(text).__name__}, expected str.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"text: found a lone surrogate (U+{ord(text[error.start]):04X}) at character "
            f"{error.start}. Decode the source with errors='replace' first."
        ) from None
    return text


def _each_id(ids: Iterable[Any]) -> Iterator[int]:
    """Python's, NumPy's and PyTorch's integers from 0, as Python's."""
    if not isinstance(ids, Iterable):
        raise TokenizerError(f"ids: found {ids!r:.60}, expected a list of integers.")
    for i in ids:
        try:
            number = i if type(i) is int else operator.index(i)
        except TypeError:
            number = -1
        if number < 0 or isinstance(i, bool):
            raise TokenizerError(f"ids: found {i!r:.60}, expected integers from 0.")
        yield number
