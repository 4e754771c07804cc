"""Qwen2 from scratch: a small, fast, complete implementation of the family, made to be read."""
