"""ChatML: messages to text through the checkpoint's own template, and tool calls back again."""

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from qwen2_book.errors import TokenizerError

# The template of Qwen2's instruct checkpoints (their `tokenizer_config.json`).
QWEN2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
MAX_TEMPLATE = 1 << 16  # characters
MAX_STEPS = 200_000  # lines of compiled template that one rendering may run
NONCHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]  # never text, by Unicode's promise

Message = Mapping[str, Any]


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with a limit on what one multiplication or power may build."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        small = all(isinstance(x, int | float) and abs(x) < 1 << 20 for x in (left, right))
        if not small or (operator == "**" and abs(right) > 64):
            raise TemplateError(f"{operator} is limited to small numbers in a chat template")
        return super().call_binop(context, operator, left, right)


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
    messages = [_message(number, message) for number, message in enumerate(messages)]
    text = json.dumps([messages, tools], ensure_ascii=False, default=str)
    mark = next((char for char in NONCHARACTERS if char not in text), None)
    if mark is None or not messages:
        problem = "every noncharacter is used" if messages else "there are no messages"
        raise TokenizerError(f"chat: {problem}; expected a list of messages of ordinary text.")
    starts = re.compile(f"([{re.escape(''.join(sorted({token[0] for token in control})))}])")

    def marked(value: Any) -> Any:
        if isinstance(value, str):
            return starts.sub(rf"\1{mark}", value)
        if isinstance(value, Mapping):
            return {marked(key): marked(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [marked(item) for item in value]
        return value

    variables = {
        "messages": marked(messages),
        "tools": marked(tools) if tools else None,
        "add_generation_prompt": add_generation_prompt,
    }
    return _run(template or QWEN2_TEMPLATE, variables), mark


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


@lru_cache(maxsize=16)
def _compiled(template: str) -> Template:
    if len(template) > MAX_TEMPLATE:
        raise TemplateError(f"{len(template):,} characters, expected at most {MAX_TEMPLATE:,}")

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(template)


def _run(template: str, variables: dict[str, Any]) -> str:
    """The rendered template; stops one that loops for ever by counting the lines it runs."""
    steps, before = 0, sys.gettrace()

    def count(frame: Any, event: str, argument: Any) -> Any:
        nonlocal steps
        if frame.f_code.co_filename != "<template>":
            return None
        steps += 1
        if steps > MAX_STEPS:
            raise TemplateError(f"it runs for more than {MAX_STEPS:,} steps")
        return count

    try:
        compiled = _compiled(template)
        sys.settrace(count)
        return compiled.render(variables)
    except Exception as error:
        raise TokenizerError(
            f"chat_template: {type(error).__name__}: {error}. The template is the checkpoint's; "
            "are these messages in an order that it accepts?"
        ) from None
    finally:
        sys.settrace(before)


@dataclass(frozen=True)
class ToolCall:
    """A function that the model asks for. `problem` says what is wrong with a malformed call."""

    name: str
    arguments: dict[str, Any]
    problem: str | None = None


def parse_tool_calls(text: str) -> tuple[str, list[ToolCall]]:
    """What an answer says besides its calls, and the calls, in order.

    Reads Qwen2.5's `<tool_call>{"name": …, "arguments": {…}}</tool_call>` and Qwen2's
    `✿FUNCTION✿: name` and `✿ARGS✿: {…}`. A malformed call is returned with its problem.
    """
    calls = []
    pattern = r"<tool_call>(.*?)(?:</tool_call>|\Z)|✿FUNCTION✿:(.*?)✿ARGS✿:(.*?)(?=✿|\Z)"
    for found in re.finditer(pattern, text, re.DOTALL):
        whole, name, arguments = found.groups()
        if whole is None:
            calls.append(_call(name.strip(), arguments))
            continue
        try:
            value = json.loads(whole)
            calls.append(_call(value["name"], value.get("arguments", {})))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            problem = f"not a JSON object with a name and arguments ({error})"
            calls.append(ToolCall("", {}, f"{problem}: {whole.strip():.200}"))
    return re.sub(pattern, "", text, flags=re.DOTALL).strip(), calls


def _call(name: Any, arguments: Any) -> ToolCall:
    try:
        values = json.loads(arguments) if isinstance(arguments, str) else arguments
    except (ValueError, RecursionError) as error:
        return ToolCall(str(name), {}, f"the arguments are not JSON ({error}): {arguments:.200}")
    if not isinstance(name, str) or not isinstance(values, dict):
        return ToolCall(str(name), {}, f"expected a name and an object, found {values!r:.200}")
    return ToolCall(name, values)
