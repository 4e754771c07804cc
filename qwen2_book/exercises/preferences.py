"""The exercises of chapter 18, direct preference optimisation: answers, hints and properties."""

from qwen2_book.exercises.base import Code, Exercise, Property, Value
from qwen2_book.exercises.preferences_checks import (
    far_push,
    first_token,
    large_rewards,
    loss_of_the_pair,
    never_negative,
    no_margin,
    no_padding,
    no_prompt,
    own_lengths,
    plain_push,
    same_mean,
    smoothed_push,
    sums_to_one,
    weighs_the_reference,
    whole_sum,
    won_by_gamma,
)

EXERCISES: dict[str, Exercise] = {
    "18-1": Value(
        expected=loss_of_the_pair,
        praise="The policy still prefers the rejected answer, and the loss is below ln 2: only the "
        "change since the reference counts.",
        hints={
            0.755: "That is the policy alone. Subtract the reference's log-probabilities first.",
            0.153: "The margin is right. Multiply it by beta before the sigmoid.",
            0.787: "That is a margin of -1.8. Chosen minus rejected, each policy minus reference.",
            0.180: "That is beta times the margin; the loss is minus the log of its sigmoid.",
            0.545: "That is the probability of the right order; the loss is minus its logarithm.",
            1.142: "Each answer's log-ratio is policy MINUS reference.",
        },
        otherwise="Not yet. Two log-ratios to the reference, their difference h, then "
        "-log sigmoid(beta h).",
        tolerance=0.004,
    ),
    "18-2": Code(
        (
            Property(
                "the reference, weighed by the reward",
                weighs_the_reference,
                "Each answer's weight is its reference probability times exp(reward / beta). "
                "`reference` holds logarithms already, and logarithms are asked for.",
            ),
            Property(
                "probabilities that sum to one",
                sums_to_one,
                "Divide by the partition function: in logarithms, subtract log Z.",
            ),
            Property(
                "rewards in the thousands",
                large_rewards,
                "exp(6000) is infinite. Stay in logarithms until the largest one is subtracted.",
            ),
        ),
        praise="Z is the normaliser of a softmax, here over four answers; over all texts nobody "
        "can compute it.",
    ),
    "18-3": Code(
        (
            Property(
                "the first answer token counts",
                first_token,
                "How often is the mask shifted? The place before the answer's first token says how "
                "likely that token was.",
            ),
            Property(
                "padding does not count",
                no_padding,
                "A row's answer ends at `ends`. What stands after it is not part of the text.",
            ),
            Property(
                "the prompt does not count",
                no_prompt,
                "Only tokens from `starts` on belong to the answer.",
            ),
            Property(
                "a sum, token by token",
                whole_sum,
                "Add up the answer's tokens, each under the logits just before it; no mean.",
            ),
        ),
        praise="Both bugs train without complaint. A comparison token by token finds them.",
    ),
    "18-4": Code(
        (
            Property(
                "without smoothing",
                plain_push,
                "The derivative of log sigmoid(u) is sigmoid(-u); beta comes from the inner "
                "derivative, and the push is MINUS the loss's slope.",
            ),
            Property(
                "with smoothing",
                smoothed_push,
                "The second term pushes the other way. Use sigmoid(u) = 1 - sigmoid(-u).",
            ),
            Property(
                "margins of a thousand nats",
                far_push,
                "exp(1000) is infinite in your formula. torch.sigmoid is safe at both ends.",
            ),
        ),
        praise="Smoothing puts a floor under the loss, at a finite margin.",
    ),
    "18-5": Code(
        (
            Property(
                "no term below zero",
                never_negative,
                "With rho = reference / policy each term is rho - 1 - log rho. Both inputs are "
                "logarithms; which one is subtracted from which?",
            ),
            Property(
                "the mean is the KL",
                same_mean,
                "Weighed by the policy's probabilities, the terms must give KL(policy || "
                "reference), not the one in the other direction.",
            ),
        ),
        praise="Honest and never negative. Where the policy has moved far, it is also very noisy.",
    ),
    "18-6": Code(
        (
            Property(
                "equal lengths, no margin",
                no_margin,
                "The reward is beta times the mean log-probability a token; then -log sigmoid of "
                "the difference, one loss for each pair.",
            ),
            Property(
                "each by its own length",
                own_lengths,
                "Divide chosen by chosen_tokens and rejected by rejected_tokens.",
            ),
            Property(
                "won by gamma",
                won_by_gamma,
                "gamma is subtracted from beta times the gap, inside the sigmoid.",
            ),
        ),
        praise="No reference at all. Train the little model with it: does it stay whole?",
    ),
}
