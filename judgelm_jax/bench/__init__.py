"""Side by side with a peer: the same weights, prompts, dtype and machine, in one run."""
