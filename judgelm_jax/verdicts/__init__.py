"""What a judge said: score lines, distributions over them, several arrangements merged into one judgment. Imports no JAX."""
