"""Records and files of JSON: what comes in, strictly read, and what goes out, whole or not at all. Imports no JAX."""
