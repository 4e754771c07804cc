"""Checkpoints on disk: found, verified, read and written; no weight is read before it is checked."""
