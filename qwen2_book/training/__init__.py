"""Teaching a model: packed batches, the loop with exact resume, SFT, DPO, rewards, LoRA."""
