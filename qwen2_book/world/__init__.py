"""One small world in two languages: the text of all stages of training, made from seeds."""
