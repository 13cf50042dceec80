"""One module per command: its flags and its `main`. JAX is imported only after flags and files have been checked."""
