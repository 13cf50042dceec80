"""Training data: from a file of teacher's judgments to the batches of a run, every row a pure function of its number."""
