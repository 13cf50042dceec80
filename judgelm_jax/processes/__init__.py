"""The processes of a run: they come together, agree on what they run, watch each other, and end together.

A collective among processes that do not agree, or of which one is dead, would wait for ever. So they speak over connections of
their own (`connections`, `watching`), and when all are there through the key-value store of JAX's coordinator (`store`).
"""
