"""Training: engine (DeepSpeed), loop, stages, self-tests, run log. Knows data and model."""
