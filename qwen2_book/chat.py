"""ChatML: messages to text through the checkpoint's own template, and tool calls back again."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qwen2_book import sandbox
from qwen2_book.errors import TokenizerError

# The template of Qwen2's instruct checkpoints (their `tokenizer_config.json`).
QWEN2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # never text, by Unicode's promise

Message = Mapping[str, Any]


def render(
    messages: Sequence[Message],
    template: str | None,
    control: Iterable[str],
    tools: Sequence[Any] | None = None,
    add_generation_prompt: bool = True,
) -> tuple[str, str]:
    """The conversation as the template writes it, and the mark that stands in users' text.

    Every character of a message or tool with which a control token could begin is followed by the
    mark, so what a user spells can be told from what the template says. Take the mark out of the
    text between control tokens before encoding it. Raises TokenizerError for messages that are
    not a conversation and for templates that fail, run away, or are too long.
    """
    if not isinstance(messages, list | tuple) or not isinstance(tools, list | tuple | None):
        raise TokenizerError("chat: expected a list of messages, and a list of tools or None.")
    messages = [_message(number, message) for number, message in enumerate(messages)]
    try:  # through JSON, so that every string in it is seen below
        text = json.dumps([messages, tools], ensure_ascii=False)
        messages, tools = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise TokenizerError(
            f"chat: messages and tools are text, numbers, lists and dicts only ({error})."
        ) from None
    mark = next((char for char in NONCHARACTERS if char not in text), None)
    if mark is None or not messages:
        problem = "every noncharacter is used" if messages else "there are no messages"
        raise TokenizerError(f"chat: {problem}; expected a list of messages of ordinary text.")
    starts = re.compile(f"([{re.escape(''.join(sorted({token[0] for token in control})))}])")

    def marked(value: Any) -> Any:
        if isinstance(value, str):
            return starts.sub(rf"\1{mark}", value)
        if isinstance(value, dict):
            return {marked(key): marked(item) for key, item in value.items()}
        if isinstance(value, list):
            return [marked(item) for item in value]
        return value

    variables = {
        "messages": marked(messages),
        "tools": marked(tools) if tools else None,
        "add_generation_prompt": add_generation_prompt,
    }
    return sandbox.run(template or QWEN2_TEMPLATE, variables), mark


def _message(number: int, message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise TokenizerError(
            f"chat: message {number} is {message!r:.80}; expected a dict with a 'role' such as "
            "'system', 'user', 'assistant' or 'tool', and a 'content'."
        )
    content = message.get("content")
    if not isinstance(content, str) and not (content is None and message.get("tool_calls")):
        raise TokenizerError(
            f"chat: the content of message {number} ({message['role']}) is {content!r:.80}; "
            "expected a string (or None beside tool_calls)."
        )
    return {**message, "content": content or ""}


@dataclass(frozen=True)
class ToolCall:
    """A function that the model asks for. `problem` says what is wrong with a malformed call."""

    name: str
    arguments: dict[str, Any]
    problem: str | None = None


def parse_tool_calls(text: str, offered: Sequence[str] = ()) -> tuple[str, list[ToolCall]]:
    """What an answer says besides its calls, and the calls, in order.

    Reads Qwen2.5's `<tool_call>{"name": …, "arguments": {…}}</tool_call>` and Qwen2's
    `✿FUNCTION✿: name` and `✿ARGS✿: {…}`. A malformed call is returned with its problem. Small
    models forget the tags: an answer that is one JSON object, fenced or not, and names a tool
    that was `offered` is a call as well.
    """
    calls: list[ToolCall] = []
    said, at = "", 0
    while found := _OPENING.search(text, at):
        said += text[at : found.start()]
        read = _tagged if found[0] == "<tool_call>" else _flowers
        call, at = read(text, found.end())
        calls.append(call)
    if offered and not calls and (bare := _bare(text)).get("name") in offered:
        return "", [_call(bare["name"], bare.get("arguments", {}))]
    return (said + text[at:]).strip(), calls


_OPENING = re.compile("<tool_call>|✿FUNCTION✿:")
_CLOSING = re.compile(r"\s*(?:</tool_call>|\Z)")
_FLOWERS = re.compile(r"([^✿]*)(?:✿ARGS✿:(.*?))?(?=✿(?:FUNCTION|RESULT|RETURN)✿|\Z)", re.DOTALL)


def _tagged(text: str, start: int) -> tuple[ToolCall, int]:
    """The call whose tag ends at `start`, and where it ends; strings in it may hold any text."""
    try:
        start += len(text[start:]) - len(text[start:].lstrip())
        value, end = json.JSONDecoder().raw_decode(text, start)
        if not (closed := _CLOSING.match(text, end)):
            raise ValueError(f"text after the object: {text[end:]:.40}")
        return _call(value["name"], value.get("arguments", {})), closed.end()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        whole, tag, _ = text[start:].partition("</tool_call>")
        problem = f"not a JSON object with a name and arguments ({error}): {whole.strip():.200}"
        return ToolCall("", {}, problem), start + len(whole) + len(tag)


def _flowers(text: str, start: int) -> tuple[ToolCall, int]:
    """The same for a call that `✿FUNCTION✿:` opens."""
    if not (found := _FLOWERS.match(text, start)):
        return ToolCall("", {}, f"no arguments: {text[start:].strip():.200}"), len(text)
    return _call(found[1].strip(), found[2] or ""), found.end()


def _bare(text: str) -> dict[str, Any]:
    """The JSON object that a whole text is, perhaps in a code fence; else an empty one."""
    inside = re.fullmatch(r"\s*(?:```(?:json)?)?(.*?)(?:```)?\s*", text, re.DOTALL)
    try:
        value = json.loads(inside[1] if inside else text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _call(name: Any, arguments: Any) -> ToolCall:
    try:
        values = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError) as error:
        return ToolCall(str(name), {}, f"the arguments are not JSON ({error}): {arguments:.200}")
    if not isinstance(name, str) or not isinstance(values, dict):
        return ToolCall(str(name), {}, f"expected a name and an object, found {values!r:.200}")
    return ToolCall(name, values)
