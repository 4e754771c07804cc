"""A checkpoint's chat template is a stranger's program: it runs here, within limits."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import lru_cache, partial, wraps
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.sandbox import ImmutableSandboxedEnvironment

from qwen2_book.errors import TokenizerError

MAX_TEMPLATE = 1 << 16  # characters
MAX_STEPS = 200_000  # lines of compiled template that one rendering may run
MAX_BUILT = 1 << 26  # characters and list items that one rendering may build, all together
MAX_SECONDS = 8.0

# What chat templates use. Jinja's other filters and Python's other string methods pad, format or
# repeat text to any length in one step, which no count of steps can stop.
FILTERS = """
    abs count d default dictsort first float int items last length list lower map max min reject
    rejectattr reverse safe select selectattr sort title trim unique upper
"""
METHODS = """
    capitalize count endswith find index isalpha isdigit isspace join lower lstrip partition
    removeprefix removesuffix replace rfind rpartition rsplit rstrip split splitlines startswith
    strip title upper
"""


class _Concatenation(CodeGenerator):
    """Compiles Jinja's `a ~ b` to a call, so that its result can be counted."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.join((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which all that a template builds comes out of one budget.

    Not bounded: copies that slices make of long texts, and the comparison of nested lists.
    """

    intercepted_binops = frozenset(["+", "*", "**", "%"])
    code_generator_class = _Concatenation

    def __init__(self) -> None:
        loops = ["jinja2.ext.loopcontrols"]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=loops, finalize=self.text)
        self.refill()
        self.concat = self.join  # type: ignore[method-assign]
        own = {"join": self.join_filter, "replace": self.replace, "string": self.text}
        kept = (
            {name: self.filters[name] for name in FILTERS.split()} | own | {"tojson": self.to_json}
        )
        self.filters = {name: self.counted(function) for name, function in kept.items()}
        self.globals = {"range": self.range, "namespace": self.globals["namespace"]}
        self.globals |= {"dict": dict, "raise_exception": _refuse}
        self.globals["strftime_now"] = lambda form: datetime.now().strftime(form[:100])

    def refill(self) -> None:
        self.left, self.deadline = MAX_BUILT, time.monotonic() + MAX_SECONDS

    def spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0 or time.monotonic() > self.deadline:
            limits = f"{MAX_BUILT:,} characters or {MAX_SECONDS:g} seconds"
            raise TemplateError(f"it builds or takes more than {limits}")

    def counted(self, function: Callable) -> Callable:
        @wraps(function)  # keeps the marks by which Jinja passes the environment
        def run(*values: Any, **named: Any) -> Any:
            self.spend(1)
            return function(*values, **named)

        return run

    def text(self, value: Any) -> Any:
        """A value as text; lists are measured first, since a short program nests them deep."""
        open_values = [value]
        while open_values and not isinstance(value, str):
            inner = open_values.pop()
            if isinstance(inner, Mapping):
                inner = [*inner.keys(), *inner.values()]
            if isinstance(inner, list | tuple):
                self.spend(16 * len(inner))  # an item weighs more than a character
                open_values += inner
            elif isinstance(inner, str):
                self.spend(len(inner))
        return value if isinstance(value, str) else str(value)

    def join(self, parts: Iterable[Any], separator: str = "") -> str:
        texts = [self.text(part) for part in parts]
        self.spend(sum(map(len, texts)) + len(texts) * len(separator))
        return separator.join(texts)

    def join_filter(self, value: Iterable[Any], d: str = "") -> str:
        return self.join(value, d)

    def replace(self, value: str, old: str, new: str, count: int = -1) -> str:
        self.spend(len(value) + value.count(old) * len(new))
        return value.replace(old, new, count)

    def range(self, *limits: int) -> range:
        if len(values := range(*limits)) > 10_000:
            raise TemplateError(f"range of {len(values):,}, expected at most 10,000")
        return values

    def to_json(self, value: Any, indent: int | None = None, **options: Any) -> str:
        if indent is not None and not 0 <= indent <= 16:
            raise TemplateError(f"tojson: found indent={indent!r}, expected at most 16")
        kept = {key: options[key] for key in ("separators", "sort_keys") if key in options}
        self.text(value)  # measures it
        return json.dumps(value, ensure_ascii=False, indent=indent, **kept)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and all(isinstance(x, str | list | tuple) for x in (left, right)):
            self.spend(len(left) + len(right))
            return left + right
        small = all(isinstance(x, int | float) and abs(x) < 1 << 20 for x in (left, right))
        if not small or (operator == "**" and abs(right) > 64):
            raise TemplateError(f"{operator} is limited to small numbers in a chat template")
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str) and attr not in METHODS.split():
            return False
        return super().is_safe_attribute(obj, attr, value)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str) and name == "replace":
            __obj = partial(__self.replace, owner)
        elif isinstance(owner, str) and name == "join":
            __obj = partial(__self.join, separator=owner)
        return super().call(__context, __obj, *args, **kwargs)


def _refuse(message: str) -> None:
    raise TemplateError(message)


@lru_cache(maxsize=16)
def _compiled(template: str) -> Template:
    if len(template) > MAX_TEMPLATE:
        raise TemplateError(f"{len(template):,} characters, expected at most {MAX_TEMPLATE:,}")
    return _Sandbox().from_string(template)


def run(template: str, variables: dict[str, Any]) -> str:
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
        compiled.environment.refill()  # type: ignore[attr-defined]
        sys.settrace(count)
        return compiled.render(variables)
    except Exception as error:
        raise TokenizerError(
            f"chat_template: {type(error).__name__}: {error}. The template is the checkpoint's; "
            "are these messages in an order that it accepts?"
        ) from None
    finally:
        sys.settrace(before)
