"""The LLaMA decoder: layers, attention and its cache. Knows nothing of judging or training."""
