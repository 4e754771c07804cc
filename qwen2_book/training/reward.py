"""A reward model: a Qwen2 that ends in one number instead of logits."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qwen2_book.model import Qwen2
from qwen2_book.training.data import PADDING, Batch, layout
from qwen2_book.training.dpo import PairBatch


class RewardModel(nn.Module):
    """How good a text is: one number, read from the hidden state of its last token."""

    def __init__(self, model: Qwen2) -> None:
        super().__init__()
        self.base, self.config = model, model.config
        self.score = nn.Linear(model.config.hidden_size, 1, bias=False)
        nn.init.normal_(self.score.weight, std=model.config.initializer_range)
        self.score.to(model.device, model.dtype)

    @property
    def device(self) -> torch.device:
        return self.base.device

    def forward(self, batch: Batch) -> Float[Tensor, "rows"]:
        """The reward of each row; a row holds one text."""
        positions, masks = layout(batch.documents, self.config)
        hidden = self.base.hidden_states(batch.token_ids, positions, masks)
        last = (batch.documents != PADDING).sum(1) - 1
        return self.score(hidden[torch.arange(len(last)), last])[:, 0].float()


def reward_loss(model: RewardModel, batch: PairBatch) -> Float[Tensor, ""]:
    """-log σ(reward of chosen - reward of rejected), summed over the pairs (Bradley-Terry)."""
    rewards = model(batch.rows)
    return -F.logsigmoid(rewards[: batch.weight] - rewards[batch.weight :]).sum()
