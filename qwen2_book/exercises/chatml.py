"""The exercises of chapter 12, ChatML and tools: answers, hints and properties."""

from qwen2_book.exercises import chatml_checks as checks
from qwen2_book.exercises.base import Code, Exercise, Property, Value

EXERCISES: dict[str, Exercise] = {
    "12-1": Value(
        expected=checks.template_tokens,
        praise="Five tokens a message, and three to open the answer.",
        hints={
            110: "Those are the 22 messages. What opens the next answer?",
            91: "Each message has two line breaks: one after the role, and where is the other?",
            108: "There are more messages: the system's, ten questions, ten answers, the last "
            "question.",
            45: "Those are the control tokens alone. Roles and line breaks are the template's too.",
            115: "The opened answer has no end yet, so it is shorter than a message.",
        },
        otherwise="Not yet. Count the tokens of one message around its text; then the opened "
        "answer.",
    ),
    "12-2": Code(
        (
            Property(
                "the text ends where its message ends",
                checks.chatml_cases([([("user", "Hello.")], False)]),
                "Nothing stands between a text and <|im_end|>, and one line break after it.",
            ),
            Property(
                "the answer is opened",
                checks.chatml_cases([([("user", "Hello.")], True)]),
                "The opened answer is <|im_start|>assistant and one line break: without it, the "
                "model must write it itself.",
            ),
            Property(
                "one system message",
                checks.chatml_cases(
                    [
                        ([("user", "Hello.")], True),
                        ([("user", "a"), ("assistant", "b"), ("user", "c")], True),
                        ([("system", "Be kind."), ("user", "a")], True),
                    ]
                ),
                "The default stands in only where the conversation does not begin with one.",
            ),
            Property(
                "texts stay as they are",
                checks.chatml_cases([([("user", " \nHello. \n"), ("assistant", "")], False)]),
                "Blanks and line breaks at the edges belong to the message: leave them.",
            ),
        ),
        praise="Byte for byte what Qwen2's template writes.",
    ),
    "12-3": Code(
        (
            Property(
                "padding is not learnt",
                checks.labels_cases([([[5, 6, 151643, 151643], [7, 8, 9, 1]], [2, 4])]),
                "After each length the target is -100, which the loss skips.",
            ),
            Property(
                "the end of the text is learnt",
                checks.labels_cases([([[5, 6, 151643, 151643], [7, 8, 9, 151643]], [3, 4])]),
                "The first 151643 of a row is the text's own end. A mask made from the id can't "
                "tell it from padding; what can?",
            ),
            Property(
                "an end in the middle",
                checks.labels_cases(
                    [([[5, 151643, 6, 151643, 151643], [151643, 1, 2, 3, 4]], [4, 5])]
                ),
                "Packed rows hold several texts: each end counts.",
            ),
        ),
        praise="Lengths decide, not ids: the model learns to stop.",
    ),
    "12-4": Code(
        (
            Property(
                "whole calls, in order",
                checks.whole_calls,
                "Each call comes back as {'name': …, 'arguments': …}; talk around it is left out.",
            ),
            Property("no calls", checks.no_calls, "A text without calls gives an empty list."),
            Property(
                "arguments written as a text",
                checks.text_arguments,
                "Some models write the arguments as JSON inside a string: read that, too.",
            ),
            Property(
                "broken calls have a problem",
                checks.problems,
                "Bad JSON, a missing end, a list, no name, nesting without end: each gives one "
                "{'problem': …} that says what is wrong. (json.loads raises RecursionError, too.)",
            ),
            Property(
                "one bad call spoils no other",
                checks.one_bad_among_good,
                "A broken call must not stop the reading of those after it.",
            ),
            Property(
                "an end tag inside a string",
                checks.tags_inside,
                "A text argument may hold </tool_call>. json.JSONDecoder().raw_decode knows where "
                "an object ends; no search for a tag does.",
            ),
        ),
        praise="Whatever the model writes, the program goes on.",
    ),
    "12-5": Code(
        (
            Property(
                "the word in one piece",
                checks.stops((["ab", "STOP", "c"], "STOP", "ab"), (["a STOP b"], "STOP", "a ")),
                "Give what stands before the word, and nothing of it or after it.",
            ),
            Property(
                "the word in many pieces",
                checks.stops(
                    (["ab✿", "RES", "ULT", "✿ 7"], "✿RESULT✿", "ab"),
                    (["a", "aab", "x"], "aab", "a"),
                ),
                "A tokenizer cuts the word anywhere: hold back an end that may be its beginning.",
            ),
            Property(
                "almost the word",
                checks.stops(
                    (["a ST", "AR", " ST"], "STOP", "a STAR ST"), (["SSTOP"], "STOP", "S")
                ),
                "What was held back and did not become the word must be given, at the end too.",
            ),
            Property(
                "asks no further",
                checks.asks_no_further,
                "Return at once: every piece more is a pass through the model.",
            ),
            Property(
                "gives early",
                checks.gives_early,
                "Do not collect all: a reader waits for every piece.",
            ),
        ),
        praise="That is how a server stops at a text that is no token.",
    ),
}
