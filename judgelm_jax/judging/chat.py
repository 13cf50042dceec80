"""Questions to a judge about its own judgment, answered piece by piece.

What it is asked comes behind the prompt and what it wrote: in the words of the published judges, or as messages of a
conversation where the judge was asked in one.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

from judgelm_jax.errors import InputError
from judgelm_jax.judging.asking import Asking
from judgelm_jax.judging.batching import Prompt, batches, bucket, bucket_lengths
from judgelm_jax.judging.engine import Decoding, Engine
from judgelm_jax.judging.prepared import Prepared
from judgelm_jax.judging.programs import DeviceSlots
from judgelm_jax.judging.responses import NOT_FINITE
from judgelm_jax.prompts.arrangements import as_shown
from judgelm_jax.tokens.chat_template import ChatTemplate, chat_ids
from judgelm_jax.tokens.tokenization import Tokenizer, going_on

# What stands before each further question, and behind it.
BEFORE, BEHIND = "\n### Instruction:\n", "\n\n### Response:"


@dataclasses.dataclass
class Chat:
    """A conversation with a judge. `ids`: everything that was said, by both; with a `template`, `messages` say it, too. One
    `ask` at a time."""

    engine: Engine
    tokenizer: Tokenizer
    ids: list[int]
    template: ChatTemplate | None = None
    messages: list[dict[str, str]] = dataclasses.field(default_factory=list)

    def ask(self, question: str) -> Iterator[str]:
        """The answer to a question, in pieces as they are generated; the question and what has been read of it are remembered.

        Raises:
          InputError: the conversation does not fit the context any more, or the model's logits are not finite.
        """
        messages = [*self.messages, {"role": "user", "content": question}]
        if self.template is None:
            asked = self.ids + going_on(self.tokenizer, BEFORE + question + BEHIND)
        else:
            asked = chat_ids(self.template, messages)
        shown = ""
        for ids, ended in generate(self.engine, asked):
            text = self.tokenizer.decode(ids)
            self.ids, self.messages = asked + ids, [*messages, {"role": "assistant", "content": text}]
            # A character may still lack bytes, which come with the next token.
            whole = text if ended else text.rstrip("\ufffd")
            if len(whole) > len(shown):
                yield whole[len(shown) :]
                shown = whole


def chat_behind(engine: Engine, asking: Asking, prepared: Prepared, response: str) -> Chat:
    """A conversation behind the first prompt of `prepared` and the response to it.

    Raises:
      InputError: the prompt was shortened, so that nothing more fits.
    """
    prompt = prepared.prompts[0]
    shown = prepared.shown[prompt.index]
    case = prepared.cases[shown.record][shown.case]
    said = response.removeprefix(asking.kind.begun(case))
    if asking.template is None:
        return Chat(engine, asking.tokenizer, [*prompt.ids.tolist(), *going_on(asking.tokenizer, said)])
    if any(shown.removed):
        raise InputError("the answers were shortened until they filled the context: there is no room for a question about them")
    text = asking.kind.prompt(case, as_shown(case.answers, shown.order))
    messages = [*asking.messages(text), {"role": "assistant", "content": response}]
    return Chat(engine, asking.tokenizer, chat_ids(asking.template, messages), asking.template, messages)


def generate(engine: Engine, ids: list[int]) -> Iterator[tuple[list[int], bool]]:
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
    context = engine.programs.whole_pages(bucket(len(ids), buckets) + engine.settings.max_new_tokens)
    devices = engine.mesh.shape["data"] * engine.mesh.shape["fsdp"]
    prompt = Prompt(0, np.asarray(ids, np.int32), np.asarray([engine.settings.seed & 0xFFFFFFFF, len(ids)], np.uint32))
    (batch,) = batches([prompt], buckets, len(ids), devices, devices, [])
    engine.compile_decoding([Decoding(devices, context, [batch])])
    slots = DeviceSlots(engine.programs, engine.params, devices, context)
    slot_of = np.full(batch.capacity, devices, np.int32)  # behind the last: padding
    slot_of[batch.prompts_by_index[0][0]] = 0
    slots.admit(batch, slot_of)
    while True:
        ended = bool(slots.decode()[0])
        ((generated, finish),) = slots.read([0])
        if finish == NOT_FINITE:
            raise InputError(
                "the model's logits are not finite (NaN or infinity); check the checkpoint, or try --dtype=float32"
            )
        yield generated, ended
        if ended:
            return
