"""Qwen2 from scratch: a small, fast, complete implementation of the family, made to be read."""

from qwen2_book.cache import KVCache
from qwen2_book.config import Qwen2Config
from qwen2_book.errors import CheckpointError, ConfigError, TokenizerError
from qwen2_book.generate import generate, stream
from qwen2_book.loading import load
from qwen2_book.model import Qwen2
from qwen2_book.quantize import optimize
from qwen2_book.sampling import Sampler
from qwen2_book.saving import save
from qwen2_book.tokenizer import Tokenizer
from qwen2_book.trace import trace

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ConfigError",
    "KVCache",
    "Qwen2",
    "Qwen2Config",
    "Sampler",
    "Tokenizer",
    "TokenizerError",
    "generate",
    "load",
    "optimize",
    "save",
    "stream",
    "trace",
]
