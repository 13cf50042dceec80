"""Judge data with a known teacher, and small judges to learn from it: for the quickstart, the bias laboratory and tests."""

from judgelm_jax.laboratory.checkpoint import write_checkpoint, write_pupil
from judgelm_jax.laboratory.facts import (
    Pair,
    label,
    make_contest,
    make_pairs,
    training_records,
    winner,
    write_answer_files,
    write_records,
)
from judgelm_jax.laboratory.vocabulary import write_tokenizer

__all__ = [
    "Pair",
    "label",
    "make_contest",
    "make_pairs",
    "training_records",
    "winner",
    "write_answer_files",
    "write_checkpoint",
    "write_pupil",
    "write_records",
    "write_tokenizer",
]
