"""From judgments and labels to metrics with intervals. Nothing here imports JAX."""
