"""The one table of tolerances: how far logits of order 10 may lie from the reference's.

A unit in the last place of a number from 8 to 16 is 0.0625 in bfloat16 and 0.0078 in float16; the
table allows for eight and six of them, which covers the distance to float32 on every layout.
"""

import torch

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.5, torch.float16: 0.05}
# Rounding can tip a close choice of experts at a few positions: there, nine in ten are looked at.
EXPERT_SHARE = 0.9


def tolerance(dtype: torch.dtype, logits: torch.Tensor) -> float:
    """The table's value, in proportion where logits are larger than 10."""
    return TOLERANCES[dtype] * max(1.0, float(logits.abs().max()) / 10)
