"""How an answer is judged: values by what they mean, functions by what they do."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class Verdict:
    """What `check` says; it prints as its message."""

    right: bool
    message: str

    def __repr__(self) -> str:
        return self.message


class Exercise(Protocol):
    """Anything that can judge an answer."""

    def judge(self, name: str, answer: object) -> Verdict: ...


def number(answer: object) -> float | None:
    """The number that an answer means: 20, 20.0, "20", "pair 20", "1,024", tensor(20), [20]."""
    if isinstance(answer, bool) or answer is None:
        return None
    if isinstance(answer, str):
        found = re.findall(r"[-−]?\d[\d,_]*(?:\.\d+)?(?:[eE][-+]?\d+)?", answer)
        return float(re.sub("[,_]", "", found[0]).replace("−", "-")) if len(found) == 1 else None
    if isinstance(answer, Sequence) and len(answer) == 1:
        return number(answer[0])
    try:
        return float(answer)  # type: ignore[arg-type]  # ints, floats, NumPy and torch scalars
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def _unanswered(name: str) -> Verdict:
    return Verdict(False, f"{name}: not answered yet. Put your answer in place of the dots.")


@dataclass(frozen=True)
class Value:
    """An exercise whose answer is a number; `hints` are for the wrong answers people give."""

    expected: Callable[[], int | float]
    praise: str
    hints: Mapping[int | float, str] = field(default_factory=dict)
    otherwise: str = "Not yet. Run the chapter's own function on this case and read off the answer."
    tolerance: float = 0.0  # relative

    def judge(self, name: str, answer: object) -> Verdict:
        """Compare a number; see `number` for the forms it may take."""
        if answer is ...:
            return Verdict(
                False, f"{name}: not answered yet. Put your answer in place of the dots."
            )
        value = number(answer)
        if value is None:
            return Verdict(False, f"{name}: found {str(answer)[:40]!r}, expected one number.")
        if self._same(value, self.expected()):
            return Verdict(True, f"{name}: right. {self.praise}")
        for wrong, hint in self.hints.items():
            if self._same(value, wrong):
                return Verdict(False, f"{name}: not yet. {hint}")
        return Verdict(False, f"{name}: {self.otherwise}")

    def _same(self, value: float, other: int | float) -> bool:
        return abs(value - other) <= self.tolerance * abs(other)


@dataclass(frozen=True)
class Property:
    """One thing that a right function does: `holds` raises AssertionError where it does not."""

    name: str
    holds: Callable[[Callable], None]
    hint: str


@dataclass(frozen=True)
class Code:
    """An exercise whose answer is a function (or a class), judged by properties, in their order."""

    properties: tuple[Property, ...]
    praise: str

    def judge(self, name: str, answer: object) -> Verdict:
        """Run every property; the message names the first that fails and those that hold."""
        if answer is ...:
            return _unanswered(name)
        if not callable(answer):
            kind = type(answer).__name__
            return Verdict(
                False, f"{name}: found a {kind}, expected the function itself, not a call."
            )
        held: list[str] = []
        for each in self.properties:
            try:
                each.holds(answer)
            except AssertionError:
                done = f" Good so far: {'; '.join(held)}." if held else ""
                return Verdict(False, f"{name}: “{each.name}” fails. {each.hint}{done}")
            except Exception as error:  # the reader's code may do anything
                text = f"{type(error).__name__}: {error}".splitlines()[0][:160]
                return Verdict(False, f"{name}: your code stopped at “{each.name}” with {text}")
            held.append(each.name)
        return Verdict(True, f"{name}: right. {self.praise}")
