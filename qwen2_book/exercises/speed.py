"""The exercises of chapter 15, making it fast: answers, hints and properties."""

from qwen2_book.exercises.base import Code, Exercise, Property, Value
from qwen2_book.exercises.speed_checks import (
    filled_again,
    half_a_step,
    laptop_tokens,
    largest_keeps_its_sign,
    most_tokens_a_second,
    never_refused,
    one_bad_round,
    one_row_at_least,
    one_slot,
    own_scale,
    rounded_up,
    rows_are_dear,
    rows_are_free,
    single_tokens,
    slots_for_all,
    two_operations,
    warm_up_is_left_out,
    within_a_round,
)

EXERCISES: dict[str, Exercise] = {
    "15-1": Value(
        expected=laptop_tokens,
        praise="No program can be faster on that machine with these weights, one text at a time.",
        hints={
            6.566: "You have counted the embedding table, of which a token reads one row.",
            7.656: "You have left out the head. It is a matrix of its own here, and is read whole.",
            14.14: "bfloat16 has two bytes a weight.",
            3.536: "That is float32; bfloat16 has two bytes a weight.",
            0.1414: "Those are seconds a token. How many tokens a second?",
        },
        tolerance=0.004,
    ),
    "15-2": Code(
        (
            Property(
                "two operations a weight and row",
                two_operations,
                "Reading a weight takes size / bandwidth seconds, using it in n rows takes "
                "2 n / speed: a multiplication and an addition in each.",
            ),
            Property(
                "a whole number, rounded up",
                rounded_up,
                "Look for the smallest whole number of rows at which arithmetic takes at least as "
                "long as reading.",
            ),
            Property("one row at least", one_row_at_least, "A pass has at least one row."),
        ),
        praise="Below that number another row is nearly free; above it, it is paid for in full.",
    ),
    "15-3": Code(
        (
            Property(
                "off by half a step at most",
                half_a_step,
                "`int()` cuts off what stands behind the point. A step should be the nearest one.",
            ),
            Property(
                "the largest weight keeps its sign",
                largest_keeps_its_sign,
                "int8 holds −128 to 127. What happens to a step of +128?",
            ),
            Property(
                "each group has its own scale",
                own_scale,
                "With scales a, b and groups of two, the weights need a, a, b, b. In what order "
                "does `repeat` put them?",
            ),
        ),
        praise="A single group in each row would have hidden the third.",
    ),
    "15-4": Code(
        (
            Property(
                "the first round is left out",
                warm_up_is_left_out,
                "The first round pays for memory, caches and compilation: leave it out.",
            ),
            Property(
                "compared within a round",
                within_a_round,
                "Divide within each round first: when the machine is slow it is slow for both.",
            ),
            Property(
                "one bad round does not matter",
                one_bad_round,
                "One round in which something else ran can move a mean as far as it likes.",
            ),
        ),
        praise="That is what every ratio of this chapter is.",
    ),
    "15-5": Code(
        (
            Property(
                "one slot",
                one_slot,
                "A request for n tokens has the first from its prompt and needs n − 1 passes.",
            ),
            Property(
                "a slot for each",
                slots_for_all,
                "All run side by side: the longest decides.",
            ),
            Property(
                "filled again at once",
                filled_again,
                "Before each pass, free slots take the next requests in their order. Do not wait "
                "until the whole batch is done.",
            ),
            Property(
                "requests for one token",
                single_tokens,
                "A request for one token has it from its prompt: it takes no pass and no slot.",
            ),
        ),
        praise="The same count as the scheduler of this chapter makes.",
    ),
    "15-6": Code(
        (
            Property(
                "free rows",
                rows_are_free,
                "If a pass over more rows takes no longer, every guess is worth it.",
            ),
            Property(
                "dear rows",
                rows_are_dear,
                "seconds[0] is a pass without guesses: no guess at all must be among the choices.",
            ),
            Property(
                "most tokens a second",
                most_tokens_a_second,
                "With k guesses a pass makes 1 + alpha + … + alpha**k tokens on average. Divide by "
                "seconds[k] and take the largest.",
            ),
            Property(
                "nothing refused",
                never_refused,
                "With alpha = 1 the closed formula divides by zero; the sum does not.",
            ),
        ),
        praise="Put the measured passes of your machine in, and it tells you whether to guess.",
    ),
}
