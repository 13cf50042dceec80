"""SentencePiece tokenizers for the texts of the laboratory."""

import io
import json
import re
from pathlib import Path

from judgelm_jax.laboratory import facts
from judgelm_jax.prompts import prompts

SIZE = 512
SIZE_WITH_SENTENCES = 470


def write_tokenizer(folder: Path, sentences: bool = False) -> int:
    """Trains a tokenizer, writes its files and returns the size of its vocabulary.

    It is a BPE model trained on the prompts and judgments of `facts.make_pairs`, each digit a token, with a fallback to
    bytes as in LLaMA's own. With `sentences`, the fixed text of prompts and the sentences of answers and reasons are tokens
    of their own, so that a prompt takes about 25 tokens instead of 430, which is what a small judge learns in minutes.
    """
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_texts(prompt=not sentences)),
        model_writer=model,
        model_type="bpe",
        vocab_size=SIZE_WITH_SENTENCES if sentences else SIZE,
        user_defined_symbols=[symbol.replace(" ", "▁") for symbol in template_sentences()] if sentences else [],
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
    settings = {**special, "tokenizer_class": "LlamaTokenizer", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).vocab_size()


def template_sentences() -> list[str]:
    """The fixed stretches of prompts of kind `pair`, questions, answers and reasons.

    The end of the prompt is in four stretches: score lines are tokenized behind the last words of the prompt alone
    (`judging.constrained_decoding`), and there its last four tokens must be those of the whole prompt. The headings of
    answers and of the reference end in one common stretch, as they would in any tokenizer: to a judge that was trained
    without references, a heading that were a single token of its own would be an empty one and could not mislead it.
    """
    fixed: dict[str, None] = {}
    for reference in (None, "\0"):
        fixed |= dict.fromkeys(prompts.render("pair", "\0", ["\0", "\0"], reference).split("\0"))
    sentences: list[str] = []
    for stretch in fixed:
        parts = re.fullmatch(r"(.*)( judgment\.)(\n\n)(###)( Response:)|(.*)( Answer\]\n)", stretch, re.DOTALL)
        sentences += [stretch] if parts is None else filter(None, parts.groups())
    for template in (facts.QUESTION, facts.ANSWER, facts.NOT_KNOWN):
        sentences += [part.rstrip() for part in template.split("{}") if len(part.strip()) > 1]
    sentences += [f" {detail}" for detail in facts.DETAILS]
    sentences += [f" {reason.format(place)}" for reason in (facts.RIGHT, facts.WRONG, facts.UNCHECKED) for place in (1, 2)]
    return list(dict.fromkeys(sentences))


def _texts(prompt: bool) -> list[str]:
    """Training text: judgments, and what they are about; with `prompt`, inside whole prompts."""
    texts = []
    for record in facts.training_records(64, seed=0):
        question, reference = record["question_body"], record["reference"]["text"]
        answers = [record["answer1_body"], record["answer2_body"]]
        texts += [prompts.render("pair", question, answers, reference)] if prompt else [question, reference, *answers]
        texts += [record["text"], record["text_w_reference"]]
    return [line for text in texts for line in text.split("\n") if line]
