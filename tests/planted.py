"""What tests of exercises share: the functions that chapters print, and which property fails."""

import math
import re
from collections.abc import Callable
from typing import Any

import regex
import torch
import torch.nn.functional as F
from chapter import NOTEBOOKS

from qwen2_book.exercises import EXERCISES


def printed(chapter: str, name: str, *repairs: tuple[str, str]) -> Any:
    """A function as a chapter prints it for the reader to repair, with some repairs made."""
    text = (NOTEBOOKS / "text" / f"{chapter}.md").read_text(encoding="utf-8")
    source = re.search(rf"^def {name}\(.*?(?=\n\ncheck)", text, re.DOTALL | re.MULTILINE)[0]
    for old, new in repairs:
        assert old in source
        source = source.replace(old, new)
    space: dict[str, Any] = {"torch": torch, "F": F, "math": math, "regex": regex}
    exec(source, space)
    return space[name]


def failed(exercise: str, answer: Callable) -> list[str]:
    """The names of all properties that do not hold for an answer."""
    found = []
    for each in EXERCISES[exercise].properties:
        try:
            each.holds(answer)
        except AssertionError:
            found.append(each.name)
    return found
