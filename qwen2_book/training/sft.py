"""Supervised fine-tuning: ChatML conversations of which only the assistant's words are learned."""

from collections.abc import Sequence
from typing import Any

from qwen2_book.errors import TrainingError
from qwen2_book.tokenizer import Tokenizer
from qwen2_book.training.data import Sample

Messages = Sequence[dict[str, Any]]  # role, content
FOLLOWS = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("tool", "assistant"),
}


def conversation_sample(tokenizer: Tokenizer, messages: Messages) -> Sample:
    """Token ids of a conversation, and which are learned: each answer with its <|im_end|>.

    Not learned: system and user turns, the `<|im_start|>assistant` header, and the line end after
    `<|im_end|>`, where generation has stopped. Raises TrainingError for roles out of order, an
    empty answer, and a conversation in which the assistant says nothing.
    """
    check_roles(messages)
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=False)
    learned = [False] * len(ids)
    for turn, message in enumerate(messages):
        if message["role"] == "assistant":
            before = tokenizer.apply_chat_template(messages[:turn], add_generation_prompt=True)
            after = tokenizer.apply_chat_template(messages[: turn + 1], add_generation_prompt=False)
            if ids[: len(before)] != before or ids[: len(after)] != after:
                raise TrainingError(
                    f"message {turn + 1}: the template writes it differently once more turns "
                    "follow, so its tokens cannot be found. Train on each answer separately."
                )
            end = len(after)
            while tokenizer.decode(after[end - 1 : end]).isspace():  # the line end
                end -= 1
            learned[len(before) : end] = [True] * (end - len(before))
    return ids, learned


def check_roles(messages: Messages) -> None:
    """Refuse what is no conversation to learn from."""
    before = ""
    for number, message in enumerate(messages, 1):
        role = message.get("role")
        if role not in FOLLOWS[before]:
            after = f"after {before}" if before else "at the start"
            raise TrainingError(
                f"message {number}: found role {role!r} {after}, expected "
                f"{' or '.join(FOLLOWS[before])}."
            )
        if role == "assistant" and not (message.get("content") or message.get("tool_calls")):
            raise TrainingError(f"message {number}: the assistant's turn is empty.")
        before = role
    if not any(message["role"] == "assistant" for message in messages):
        raise TrainingError(
            "no assistant turn: expected at least one, since only those are learned."
        )
