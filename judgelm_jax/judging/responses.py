"""What the engine gives back: responses, and counts of the work behind them. Imports no JAX."""

import dataclasses

import numpy as np

from judgelm_jax.judging.batching import Batch

NOT_FINITE = "not finite"  # the logits of a prompt were no numbers: weights that are damaged, or too large for the dtype


@dataclasses.dataclass(frozen=True)
class Response:
    """What was generated for the prompt with this `index`; `finish` is `stop`, `length` or `NOT_FINITE`.

    `reason`: the text before the marker behind which the verdict stands, where it was generated first.
    `log_probabilities`: float32 [lines] of a `LineTree` or [scores, values] of a `ScoreChain`, in mode `distribution`; nothing
    is generated there.
    """

    index: int
    ids: list[int]
    finish: str
    log_probabilities: np.ndarray | None = None
    reason: str | None = None


@dataclasses.dataclass
class Counts:
    """What the engine computed: tokens of prompts, those of them that were computed with another prompt's, tokens of padding,
    generated tokens; programs and the seconds that compiling them took; steps of slots, and those of slots with a prompt."""

    prompt_tokens: int = 0
    shared_tokens: int = 0
    padding_tokens: int = 0
    generated_tokens: int = 0
    programs: int = 0
    compile_seconds: float = 0.0
    slot_steps: int = 0
    busy_slot_steps: int = 0

    @property
    def padding(self) -> float:
        """The share of padding in all prompt tokens that were computed."""
        return self.padding_tokens / max(1, self.padding_tokens + self.prompt_tokens - self.shared_tokens)

    def add_prompts(self, batch: Batch) -> None:
        """Counts the tokens of a batch that is computed."""
        tokens = sum(len(prompt.ids) for _, prompt in batch.prompts_by_index)
        self.prompt_tokens += tokens
        self.shared_tokens += tokens - batch.tree_tokens
        self.padding_tokens += len(batch.device_batches) * batch.row_length - batch.tree_tokens
