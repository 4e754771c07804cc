"""Exercises that answer back: `check("04-1", answer)`.

A right answer is accepted in any form that means it, a well-known wrong one is met with a hint, and
no message ever holds the solution. Functions are run against properties that name what fails.
"""

from qwen2_book.exercises import (
    attention,
    chatml,
    checkpoints,
    experts,
    generation,
    long_context,
    meet,
    preferences,
    pretraining,
    rope,
    seeing,
    speed,
    stream,
    swiglu,
    tokenizer,
    tuning,
    whole,
    window,
)
from qwen2_book.exercises.base import Exercise, Verdict

EXERCISES: dict[str, Exercise] = {
    **meet.EXERCISES,
    **tokenizer.EXERCISES,
    **stream.EXERCISES,
    **rope.EXERCISES,
    **attention.EXERCISES,
    **swiglu.EXERCISES,
    **window.EXERCISES,
    **experts.EXERCISES,
    **whole.EXERCISES,
    **checkpoints.EXERCISES,
    **generation.EXERCISES,
    **chatml.EXERCISES,
    **long_context.EXERCISES,
    **seeing.EXERCISES,
    **speed.EXERCISES,
    **pretraining.EXERCISES,
    **tuning.EXERCISES,
    **preferences.EXERCISES,
}


def check(name: str, answer: object = ...) -> Verdict:
    """Judge an answer to an exercise, such as "04-1": a number, a text, a function or a class.

    The three dots `...` mean "not answered yet". An unknown name raises ValueError.
    """
    if name not in EXERCISES:
        known = ", ".join(sorted(EXERCISES))
        raise ValueError(f"found exercise {name!r}, expected one of: {known}")
    return EXERCISES[name].judge(name, answer)


__all__ = ["EXERCISES", "Verdict", "check"]
