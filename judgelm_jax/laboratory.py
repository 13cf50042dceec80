"""Judge data with a known teacher, and a small judge to go with it: for the quickstart and for tests.

Everything is made from a seed. The questions ask for the colour of a thing; an answer names the right colour or another one,
with more or fewer details; the teacher knows the colours and scores accordingly, so the right verdict of every pair is known.
"""

import dataclasses
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path

from judgelm_jax import prompts
from judgelm_jax.config import ModelConfig
from judgelm_jax.records import Record, dump_line, write_atomically

_COLOURS = ("red", "blue", "green", "white", "black", "yellow")
_THINGS = ("lamp", "boat", "door", "kite", "bridge", "coat", "tower", "clock", "garden", "train", "mill", "harbour")
_DETAILS = ("It was painted last year.", "Anybody in the village can tell you.", "It has never been another colour.")

RIGHT_SCORE, WRONG_SCORE = 7, 2  # of an answer without details; each detail adds one


@dataclasses.dataclass(frozen=True)
class Pair:
    """One question with two answers and what the teacher says of them. `record` is in the form of judge records."""

    record: Record
    scores: tuple[int, int]
    judgment: str


def make_pairs(count: int, seed: int) -> list[Pair]:
    """`count` pairs, each a function of the seed and its number alone."""
    return [_pair(number, random.Random(f"{seed}/{number}")) for number in range(count)]


def write_answer_files(pairs: Sequence[Pair], folder: Path) -> tuple[Path, Path, Path]:
    """Writes the answers of both models and the teacher's labels; returns the three files."""
    first, second, labels = (folder / name for name in ("answers-first.jsonl", "answers-second.jsonl", "labels.jsonl"))
    for path, number in ((first, 1), (second, 2)):
        _write(path, [_answer(pair.record, number) for pair in pairs])
    _write(labels, [{"question_id": p.record["question_id"], "score": list(p.scores), "text": p.judgment} for p in pairs])
    return first, second, labels


def write_checkpoint(folder: Path, seed: int, context: int = 2048) -> ModelConfig:
    """Writes an untrained judge of about 150,000 parameters in Hugging Face form: weights, config and tokenizer.

    The tokenizer is a SentencePiece BPE model trained on the prompts of `make_pairs`, digits apart and with a fallback to
    bytes as in LLaMA's own.
    """
    import numpy as np
    import safetensors.numpy

    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder)
    config = ModelConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=160,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=16,
        context=context,
        norm_epsilon=1e-5,
        rope_base=10000.0,
        rope_scaling=None,
        tied_embeddings=False,
        bos_id=1,
        eos_ids=(2,),
    )
    from judgelm_jax.checkpoints.hf import tensor_table

    generator = np.random.default_rng(seed)
    tensors = {
        name: np.ones(entry.shape, np.float32)
        if len(entry.shape) == 1
        else generator.normal(0.0, 0.1, entry.shape).astype(np.float32)
        for name, entry in tensor_table(config).items()
    }
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", config.to_hf("float32"))
    return config


def _pair(number: int, rng: random.Random) -> Pair:
    thing, colour = rng.choice(_THINGS), rng.choice(_COLOURS)
    reference = f"The {thing} is {colour}."
    answers, scores, reasons = [], [], []
    for place in (1, 2):
        right = rng.random() < 0.5
        named = colour if right else rng.choice([other for other in _COLOURS if other != colour])
        details = rng.sample(_DETAILS, rng.randrange(3))
        answers.append(" ".join([f"The {thing} is {named}.", *details]))
        scores.append((RIGHT_SCORE if right else WRONG_SCORE) + len(details))
        reasons.append(f"Assistant {place} is {'right' if right else 'wrong'}.")
    record = {
        "question_id": number,
        "question_body": f"Which colour is the {thing}?",
        "answer1_body": answers[0],
        "answer2_body": answers[1],
        "answer1_model_id": "first",
        "answer2_model_id": "second",
        "reference": {"text": reference},
    }
    judgment = f"{scores[0]} {scores[1]}\n{reference} {' '.join(reasons)}"
    return Pair(record, (scores[0], scores[1]), judgment)


def _answer(record: Record, number: int) -> Record:
    return {
        "question_id": record["question_id"],
        "question_body": record["question_body"],
        "text": record[f"answer{number}_body"],
        "model": record[f"answer{number}_model_id"],
        "reference": record["reference"],
    }


def write_tokenizer(folder: Path) -> int:
    """Trains the tokenizer, writes its files and returns the size of its vocabulary."""
    import sentencepiece

    texts = [
        line
        for pair in make_pairs(64, seed=0)
        for answers in [[pair.record["answer1_body"], pair.record["answer2_body"]]]
        for text in (
            prompts.render("pair", pair.record["question_body"], answers, pair.record["reference"]["text"]),
            pair.judgment,
        )
        for line in text.split("\n")
        if line
    ]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=512,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    _write_json(folder / "tokenizer_config.json", {**special, "tokenizer_class": "LlamaTokenizer", "add_bos_token": True})
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).vocab_size()


def _write(path: Path, rows: Sequence[Record]) -> None:
    with write_atomically(path) as file:
        file.writelines(dump_line(row) + "\n" for row in rows)


def _write_json(path: Path, values: dict) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
