"""The exercises of chapter 10, loading real checkpoints: answers, hints and properties."""

from qwen2_book.exercises import checkpoints_checks as checks
from qwen2_book.exercises.base import Code, Exercise, Property, Value

EXERCISES: dict[str, Exercise] = {
    "10-1": Value(
        expected=checks.bytes_of_7b,
        praise="Two bytes for each of 7.6 billion parameters; the header adds some kilobytes.",
        hints={
            7_615_616_512: "That counts parameters. How many bytes has each in bfloat16?",
            14_141_238_272: "The head of the 7B is not tied: it lies in the file as well.",
            30_462_466_048: "That is float32. The released files hold bfloat16.",
            988_065_536: "That is the 0.5B.",
        },
        otherwise="Not yet. Sum the sizes of layout.shapes for Qwen2Config.named('Qwen2-7B').",
    ),
    "10-2": Value(
        expected=checks.tensors_of_moe,
        praise="Seventeen a layer and three outside. In the safetensors files the same weights are "
        "5,771 tensors.",
        hints={
            5_771: "That is the safetensors form, three tensors for each of 64 experts. A GGUF "
            "file stacks the experts of a layer.",
            478: "One short: is the head of the 57B tied?",
            339: "That is the dense 7B. A mixture has a router, a shared expert and its gate.",
            476: "The layers are right. What lies outside of them?",
        },
        otherwise="Not yet. Take the names of layout.shapes and let all experts of a layer share "
        "one.",
    ),
    "10-3": Code(
        (
            Property(
                "reads a good file",
                checks.header_reads,
                "Offsets in the header count from the end of the header; yours should count from "
                "the start of the file. `__metadata__` is no tensor.",
            ),
            Property(
                "refuses a truncated file",
                checks.header_refuses(*checks.TRUNCATED),
                "Cut anywhere, even inside the first eight bytes, it must end in a ValueError.",
            ),
            Property(
                "refuses an absurd header length",
                checks.header_refuses(*checks.HUGE),
                "Compare the length with what the file holds before reading that much.",
            ),
            Property(
                "refuses a shape that does not fit its bytes",
                checks.header_refuses(*checks.WRONG_SIZE),
                "The product of the shape times the bytes of the dtype must be end minus start.",
            ),
            Property(
                "refuses overlaps",
                checks.header_refuses(*checks.OVERLAPPING),
                "Two tensors must not share a byte. Sort by start, and look at neighbours.",
            ),
            Property(
                "refuses gaps",
                checks.header_refuses(*checks.GAPS),
                "Bytes that belong to no tensor are refused, at the beginning, between two, and at "
                "the end.",
            ),
        ),
        praise="One walk over the sorted offsets finds overlaps, gaps and missing ends alike.",
    ),
    "10-4": Code(
        (
            Property(
                "eighteen bytes a block",
                checks.q4_form,
                "A uint8 array (n, 18): two bytes of scale, sixteen bytes of numbers.",
            ),
            Property(
                "the scale",
                checks.q4_scale,
                "The weight of the largest size, with its sign, becomes −8: its number has no "
                "positive twin.",
            ),
            Property(
                "the order of the halves",
                checks.q4_order,
                "Byte i holds weight i in its lower four bits and weight i + 16 in its upper four.",
            ),
            Property(
                "the nearest number",
                checks.q4_nearest,
                "Round to the nearest of −8 … 7, then add 8; do not cut off.",
            ),
            Property(
                "a block of zeros",
                checks.q4_zeros,
                "Its scale is zero: what do you divide by?",
            ),
        ),
        praise="The library's own reader takes your bytes.",
    ),
    "10-5": Code(
        (
            Property(
                "the rows of Qwen2",
                checks.rows_of_qwen2,
                "The converter reorders Llama's queries and keys only. What must happen to a qwen2 "
                "file?",
            ),
            Property(
                "the rows of Llama",
                checks.rows_of_llama,
                "Four query heads share two key heads. By which number are the keys' rows cut?",
            ),
            Property(
                "a head in the file",
                checks.head_of_the_file,
                "The configuration says tied, and the file holds a head all the same. Which of the "
                "two was trained?",
            ),
            Property(
                "a tied head",
                checks.head_tied,
                "With no head in the file, the embedding is the head.",
            ),
        ),
        praise="None of the three faults raises an error, in your code or in theirs.",
    ),
    "10-6": Code(
        (
            Property(
                "eighteen bytes a block",
                checks.q4_form,
                "Still Q4_0: a uint8 array (n, 18) that the library reads.",
            ),
            Property(
                "never worse",
                checks.better_never_worse,
                "Keep the plain scale where no other gives a smaller error, measured after the "
                "scale is rounded to float16.",
            ),
            Property(
                "three percent better",
                checks.better_by_three_percent,
                "Try a dozen scales around the plain one, of both signs, and keep the best of each "
                "block.",
            ),
        ),
        praise="The file is as large as before, and the reader of it need not change.",
    ),
}
