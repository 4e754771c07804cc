"""Checkpoints: safetensors and GGUF files read, verified and written; hub folders fetched."""
