"""The exercises of chapter 16, pretraining: answers, hints and properties."""

from qwen2_book.exercises.base import Code, Exercise, Property, Value
from qwen2_book.exercises.pretraining_checks import (
    climbs,
    days,
    empty_batch,
    ends_at_its_share,
    equal_batches,
    first_loss,
    follows_the_cosine,
    jump,
    one_document,
    short_documents,
    two_documents,
    unequal_batches,
)

EXERCISES: dict[str, Exercise] = {
    "16-1": Value(
        expected=first_loss,
        praise="A run that starts far above it begins with something wrong.",
        hints={
            11.9312: "That is ln V, of logits that are all alike. These have a spread.",
            12.5299: "Half the variance is added, not the standard deviation.",
            12.2896: "That is the whole variance. The Gaussian integral has a half in it.",
            17.4715: "Those are bits. The losses of this book are in nats.",
        },
        otherwise="Not yet. What is the variance of one logit? Then use equation (2).",
        tolerance=0.0005,
    ),
    "16-2": Code(
        (
            Property(
                "a line up to the peak",
                climbs,
                "Step 0 is the first step of the warm-up and its rate is not zero: peak / warm_up. "
                "The last step of the warm-up has the peak.",
            ),
            Property(
                "ends at its share of the peak",
                ends_at_its_share,
                "The last step is number steps - 1, and its rate is share × peak. The cosine runs "
                "over the steps AFTER the warm-up.",
            ),
            Property(
                "half a cosine between",
                follows_the_cosine,
                "From the peak to its share: share + (1 - share) × (1 + cos(π t)) / 2, where t "
                "runs from 0 to 1.",
            ),
        ),
        praise="Ten lines, and every run of this book uses them.",
    ),
    "16-3": Value(
        expected=days,
        praise="About a week and a half: thousands of processors are why such runs end at all.",
        hints={
            2.865: "That is the forward pass alone. The backward pass costs twice as much again.",
            9.255: "That counts the embedding's rows, too; looking a row up is no multiplication.",
            7.930: "Without the head. Its matrix is passed by every token.",
            206.2: "Those are hours.",
            8591.0: "Those are days for one processor.",
        },
        otherwise="Not yet. C = 6 N D, with N from `costs.matmul_flops`, over what is done a day.",
        tolerance=0.01,
    ),
    "16-4": Code(
        (
            Property("batches of one size", equal_batches, "The gradient of the mean over tokens."),
            Property(
                "batches of different sizes",
                unequal_batches,
                "Every TOKEN counts alike in the large batch. What does a token count in a mean of "
                "means?",
            ),
            Property(
                "a batch with nothing to learn",
                empty_batch,
                "A mean over no tokens is not a number. A sum over none is zero.",
            ),
        ),
        praise="Sum, and divide once by the number of all tokens: so does `train`.",
    ),
    "16-5": Code(
        (
            Property("one document", one_document, "Each target is the token that follows."),
            Property(
                "two documents",
                two_documents,
                "What is the target at the last token of the first document?",
            ),
            Property(
                "documents of one token", short_documents, "Nothing follows: its target is -100."
            ),
        ),
        praise="The first word of a document follows from nothing in the row.",
    ),
    "16-6": Value(
        expected=jump,
        praise="Each noisy weight jumps that far, which is why the moments are saved.",
        hints={
            1: "Before the loss of the moments the first one nearly cancels; after it, it cannot.",
            10: "Nearly: m does not shrink by 1 - β alone, for its terms alternate in sign.",
            0.05263: "That is the size of the usual step. How many of it make the first one?",
            39: "That would be β = 0.95, which is the other moment's.",
        },
        otherwise="Not yet. In the long run m flips between +a and -a: what does m = βm + (1-β)g "
        "make of a? And what is m divided by 1 - β after a first step?",
        tolerance=0.01,
    ),
}
