"""The tokenizer in the metadata of a GGUF, as the files from which it was made.

llama.cpp has two kinds: `llama`, whose pieces, scores and types are those of a SentencePiece model, so that one is written
(`tokenizer.model`), and `gpt2`, byte-level BPE (`tokenizer.json`), whose split of text before BPE has a name only.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from judgelm_jax.errors import InputError

# A type of token, as in SentencePiece and in llama.cpp.
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4

_LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# llama.cpp's name of a split → (a pattern of its own in place of GPT-2's, whether each digit stands alone first). The ones
# with a pattern take a piece that is a token whole, whatever the merges say, and begin with BOS unless the file says otherwise.
_SPLITS: dict[str, tuple[str | None, bool]] = {
    **dict.fromkeys(("gpt-2", "mpt", "olmo", "jais", "phi-2"), (None, False)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "codeshell", "exaone"), (None, True)),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3"), (_LLAMA3, False)),
    "tekken": (_TEKKEN, False),
}


def write_tokenizer(file: Path, metadata: Mapping[str, Any], folder: Path) -> None:
    """Writes the tokenizer of `file`, which has this metadata, to `folder`; nothing where it holds none.

    Raises:
      InputError: the tokenizer is broken or of a kind that is not supported.
    """
    kind = metadata.get("tokenizer.ggml.model")
    if kind is None or kind == "no_vocab":
        return
    tokens, types = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.token_type")
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise InputError(f"{file}: tokenizer.ggml.tokens is no list of texts; fetch the file again")
    types = [1] * len(tokens) if types is None else types
    if not isinstance(types, list) or len(types) != len(tokens) or not all(type(kind) is int for kind in types):
        raise InputError(f"{file}: tokenizer.ggml.token_type does not fit its tokens; fetch the file again")
    if metadata.get("tokenizer.ggml.precompiled_charsmap"):
        raise InputError(f"{file}: its tokenizer changes characters (precompiled_charsmap), which is not supported")
    bos_first = bool(metadata.get("tokenizer.ggml.add_bos_token", _adds_bos(kind, metadata)))
    if kind == "llama":
        _write_sentencepiece(file, metadata, tokens, types, folder / "tokenizer.model")
    elif kind == "gpt2":
        _write_byte_level(file, metadata, tokens, types, bos_first, folder / "tokenizer.json")
    else:
        raise InputError(f"{file}: a tokenizer of the kind {kind!r}; supported are 'llama' and 'gpt2'")
    settings: dict[str, Any] = {
        "tokenizer_class": "LlamaTokenizer" if kind == "llama" else "PreTrainedTokenizerFast",
        "add_bos_token": bos_first,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
    }
    for name in ("bos", "eos", "unknown", "padding"):
        index = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if type(index) is int and 0 <= index < len(tokens):
            settings[{"unknown": "unk_token", "padding": "pad_token"}.get(name, f"{name}_token")] = tokens[index]
    if isinstance(metadata.get("tokenizer.chat_template"), str):
        settings["chat_template"] = metadata["tokenizer.chat_template"]
    text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def _adds_bos(kind: str, metadata: Mapping[str, Any]) -> bool:
    """What llama.cpp does where the file does not say."""
    return kind == "llama" or _SPLITS.get(str(metadata.get("tokenizer.ggml.pre")), (None, False))[0] is not None


def _write_sentencepiece(file: Path, metadata: Mapping[str, Any], tokens: list[str], types: list[int], target: Path) -> None:
    from sentencepiece import sentencepiece_model_pb2

    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise InputError(f"{file}: tokenizer.ggml.scores does not fit its tokens; fetch the file again")
    if types.count(_UNKNOWN) != 1 or not all(1 <= kind <= 6 for kind in types):
        raise InputError(f"{file}: tokenizer.ggml.token_type names no unknown token, or an unknown type; fetch the file again")
    model = sentencepiece_model_pb2.ModelProto()
    model.trainer_spec.model_type = model.trainer_spec.BPE
    model.trainer_spec.vocab_size = len(tokens)
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.unk_id = types.index(_UNKNOWN)
    for name in ("bos", "eos"):
        index = metadata.get(f"tokenizer.ggml.{name}_token_id")
        setattr(model.trainer_spec, f"{name}_id", index if type(index) is int else -1)
        if type(index) is int and 0 <= index < len(tokens):
            setattr(model.trainer_spec, f"{name}_piece", tokens[index])
    model.trainer_spec.pad_id = -1
    model.trainer_spec.unk_piece = tokens[model.trainer_spec.unk_id]
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    model.normalizer_spec.remove_extra_whitespaces = bool(metadata.get("tokenizer.ggml.remove_extra_whitespaces", False))
    model.normalizer_spec.escape_whitespaces = True
    for token, score, kind in zip(tokens, scores, types, strict=True):
        # llama.cpp calls tokens that were added later user-defined; one in brackets is markup, which no text may produce.
        markup = kind == _USER_DEFINED and token[:1] + token[-1:] in ("<>", "[]") and len(token) > 2
        model.pieces.add(piece=token, score=score, type=_CONTROL if markup else kind)
    target.write_bytes(model.SerializeToString())


def _write_byte_level(
    file: Path, metadata: Mapping[str, Any], tokens: list[str], types: list[int], bos_first: bool, target: Path
) -> None:
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, processors

    split = metadata.get("tokenizer.ggml.pre")
    if split not in _SPLITS:
        raise InputError(
            f"{file}: its tokenizer splits text by the rule {split!r} (tokenizer.ggml.pre); supported are {', '.join(_SPLITS)}"
        )
    pattern, digits = _SPLITS[split]
    merges = metadata.get("tokenizer.ggml.merges")
    pairs = [tuple(merge.split(" ")) for merge in merges] if isinstance(merges, list) else None
    if pairs is None or not all(len(pair) == 2 for pair in pairs) or len(set(tokens)) != len(tokens):
        raise InputError(f"{file}: tokenizer.ggml.merges or its tokens are broken; fetch the file again")
    try:
        model = models.BPE({token: index for index, token in enumerate(tokens)}, pairs, ignore_merges=pattern is not None)
        tokenizer = tokenizers.Tokenizer(model)
    except Exception as error:  # the library raises nothing more specific
        raise InputError(f"{file}: tokenizer.ggml.merges does not fit its tokens ({error}); fetch the file again") from error
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    before: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    if pattern is not None:
        before = [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*before, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    for token, kind in zip(tokens, types, strict=True):
        if kind in (_UNKNOWN, _CONTROL):
            tokenizer.add_special_tokens([tokenizers.AddedToken(token, normalized=False, special=True)])
        elif kind == _USER_DEFINED:
            tokenizer.add_tokens([tokenizers.AddedToken(token, normalized=False, special=False)])
    bos = metadata.get("tokenizer.ggml.bos_token_id")
    if bos_first and type(bos) is int and 0 <= bos < len(tokens):
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[tokens[bos], "$A"], pair=[tokens[bos], "$A", tokens[bos], "$B"], special_tokens=[(tokens[bos], bos)]
        )
    tokenizer.save(str(target))
