"""The package's errors: each says what was found, what was expected and what to do."""


class ConfigError(ValueError):
    """A configuration that is not a usable Qwen2 configuration."""


class CheckpointError(ValueError):
    """Weights, or the files around them, that cannot be loaded or saved."""


class TokenizerError(ValueError):
    """A tokenizer file, a text or a list of ids that the tokenizer cannot use."""


class TrainingError(ValueError):
    """Training data, settings or a run's folder that training cannot go on with."""
