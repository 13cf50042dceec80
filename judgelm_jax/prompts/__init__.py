"""How a judge is asked: the wording, and the orders in which the answers are shown. Imports no JAX."""
