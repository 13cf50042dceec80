"""Files that other tools read and write: one module a format. Nothing here imports JAX."""
