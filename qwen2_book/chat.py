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
    calls = []
    end = r"(?=✿(?:FUNCTION|RESULT|RETURN)✿|\Z)"
    pattern = r"<tool_call>(.*?)(?:</tool_call>|\Z)|"
    pattern += rf"✿FUNCTION✿:([^✿]*)(?:✿ARGS✿:(.*?))?{end}"
    for found in re.finditer(pattern, text, re.DOTALL):
        whole, name, arguments = found.groups()
        if whole is None:
            calls.append(_call(name.strip(), "" if arguments is None else arguments))
            continue
        try:
            value = json.loads(whole)
            calls.append(_call(value["name"], value.get("arguments", {})))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            problem = f"not a JSON object with a name and arguments ({error})"
            calls.append(ToolCall("", {}, f"{problem}: {whole.strip():.200}"))
    if offered and not calls and (bare := _bare(text)).get("name") in offered:
        return "", [_call(bare["name"], bare.get("arguments", {}))]
    return re.sub(pattern, "", text, flags=re.DOTALL).strip(), calls


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
