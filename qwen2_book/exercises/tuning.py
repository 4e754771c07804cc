"""The exercises of chapter 17, supervised fine-tuning: answers, hints and properties."""

from qwen2_book.exercises.base import Code, Exercise, Property, Value
from qwen2_book.exercises.tuning_checks import (
    all_before,
    best,
    cut_off,
    each_once,
    end_is_learned,
    few_rows,
    next_token,
    no_empty_row,
    none_too_long,
    one_answer,
    own_text_only,
    padding_is_not,
    role_in_text,
    thin,
    token_mean,
    two_answers,
    whole_answer,
    whole_at_full_rank,
)

EXERCISES: dict[str, Exercise] = {
    "17-1": Value(
        expected=token_mean,
        praise="The mean of the two means would be more than twice as much: one short, surprising "
        "answer would weigh as much as a long one.",
        hints={
            1.75: "That is the mean of the two means. Each token shall weigh the same.",
            15.0: "That is the sum over all tokens. Divide by their number.",
            7.5: "You divided by the number of answers. Divide by the number of tokens.",
            3.5: "That is the sum of the means. A mean times its tokens is the answer's sum.",
        },
        tolerance=0.005,
    ),
    "17-2": Code(
        (
            Property(
                "one answer",
                one_answer,
                "From after the line end of `assistant` to the end token, which is learned, too; "
                "not the header, not the line end after the turn.",
            ),
            Property(
                "two answers",
                two_answers,
                "Each turn of the assistant is learned, and none of the user's between them.",
            ),
            Property(
                "the word in a text",
                role_in_text,
                "The word “assistant” is a role only right after a start token.",
            ),
            Property(
                "an answer that is cut off",
                cut_off,
                "Where the conversation ends inside an answer, what is there of it is learned.",
            ),
        ),
        praise="By control tokens, which no user can write; no text was searched.",
    ),
    "17-3": Code(
        (
            Property(
                "the token that follows",
                next_token,
                "The target at a position is the very next token: how often is it shifted?",
            ),
            Property(
                "whole answers, nothing else",
                whole_answer,
                "`learned[t]` says whether token t is to be learned. Its target stands at t − 1: "
                "does the mark move along with the token?",
            ),
            Property(
                "the end of each answer",
                end_is_learned,
                "With pad = <|im_end|> the real end tokens disappear from the targets. What is "
                "padding is known from the length of a row, not from the token's number.",
            ),
            Property(
                "no padding",
                padding_is_not,
                "What fills a row must not be learned, whatever its number is.",
            ),
        ),
        praise="Every one of the three lets the loss fall.",
    ),
    "17-4": Code(
        (
            Property("each once", each_once, "Every number from 0 on stands in exactly one row."),
            Property(
                "no row too long", none_too_long, "The lengths in a row add up to `room` at most."
            ),
            Property(
                "few rows",
                few_rows,
                "Take the longest first, and put each into the first row that still has room: the "
                "short ones at the end fill the gaps.",
            ),
        ),
        praise="Within two ninths of the fewest rows there can be, and mostly nearer.",
    ),
    "17-5": Code(
        (
            Property(
                "its own text only",
                own_text_only,
                "A query may see a key only where both have the same number.",
            ),
            Property(
                "all of it up to itself",
                all_before,
                "Inside a text it is the causal mask: every key up to the query, itself included.",
            ),
            Property(
                "no empty row",
                no_empty_row,
                "A padding query that sees nothing gives 0/0. Let it see itself.",
            ),
        ),
        praise="With positions that restart, this is all that packing needs.",
    ),
    "17-6": Code(
        (
            Property("two thin matrices", thin, "Return B (out, rank) and A (rank, in)."),
            Property(
                "whole at full rank",
                whole_at_full_rank,
                "With the full rank, B A is the change itself. Where did the singular values go?",
            ),
            Property(
                "the best there is",
                best,
                "Keep the largest singular values with their vectors, on both sides.",
            ),
        ),
        praise="So much of a change fits an adapter of that rank, however it was found.",
    ),
}
