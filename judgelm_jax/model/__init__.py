"""The decoder of all families: layers, attention and its cache. Knows nothing of judging or training."""
