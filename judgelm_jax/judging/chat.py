"""Questions to a judge about its own judgment, answered piece by piece.

What it is asked comes behind the prompt and what it wrote, in the words of the published judges.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from judgelm_jax.errors import InputError
from judgelm_jax.judging.batching import Prompt, batches, bucket, bucket_lengths
from judgelm_jax.judging.engine import Engine
from judgelm_jax.judging.programs import DeviceSlots, whole_pages
from judgelm_jax.judging.responses import NOT_FINITE
from judgelm_jax.tokenization import Tokenizer, going_on

# What stands before each further question, and behind it.
BEFORE, BEHIND = "\n### Instruction:\n", "\n\n### Response:"


@dataclasses.dataclass
class Chat:
    """A conversation with a judge. `ids`: everything that was said, by both. One `ask` at a time."""

    engine: Engine
    tokenizer: Tokenizer
    ids: list[int]
    seed: int = 0

    def ask(self, question: str) -> Iterator[str]:
        """The answer to a question, in pieces as they are generated; the question and what has been read of it are remembered.

        Raises:
          InputError: the conversation does not fit the context any more, or the model's logits are not finite.
        """
        asked = self.ids + going_on(self.tokenizer, BEFORE + question + BEHIND)
        shown = ""
        for ids, ended in generate(self.engine, asked, self.seed):
            self.ids = asked + ids
            text = self.tokenizer.decode(ids)
            # A character may still lack bytes, which come with the next token.
            whole = text if ended else text.rstrip("\ufffd")
            if len(whole) > len(shown):
                yield whole[len(shown) :]
                shown = whole


def generate(engine: Engine, ids: list[int], seed: int) -> Iterator[tuple[list[int], bool]]:
    """What follows `ids`: all ids so far and whether that is all, after every few tokens.

    Raises:
      InputError: `ids` and `max_new_tokens` more are longer than the context, or the model's logits are not finite.
    """
    room = engine.config.context - engine.settings.max_new_tokens
    if len(ids) > room:
        raise InputError(
            f"the conversation has {len(ids)} tokens and the answer may have {engine.settings.max_new_tokens}, more than the "
            f"context of {engine.config.context} holds; begin a new one, or choose a smaller --max_new_tokens"
        )
    buckets = bucket_lengths(room)
    context = whole_pages(bucket(len(ids), buckets) + engine.settings.max_new_tokens)
    devices = engine.mesh.shape["data"] * engine.mesh.shape["fsdp"]
    prompt = Prompt(0, np.asarray(ids, np.int32), np.asarray([seed & 0xFFFFFFFF, len(ids)], np.uint32))
    (batch,) = batches([prompt], buckets, len(ids), devices, devices, [])
    engine.programs.compile_decoding(engine.params, [batch], devices, context, [context])
    slots = DeviceSlots(engine.programs, engine.params, devices, context)
    slot_of = np.full(batch.capacity, devices, np.int32)  # behind the last: padding
    slot_of[batch.prompts_by_index[0][0]] = 0
    slots.admit(batch, slot_of)
    while True:
        ended = bool(slots.decode(context)[0])
        ((generated, finish),) = slots.read([0])
        if finish == NOT_FINITE:
            raise InputError(
                "the model's logits are not finite (NaN or infinity); check the checkpoint, or try --dtype=float32"
            )
        yield generated, ended
        if ended:
            return
