"""From a case to the ids of its prompt: as text behind BOS, or as a conversation by the tokenizer's own chat template."""

import dataclasses
import functools
import operator
from collections.abc import Sequence

from judgelm_jax.errors import InputError
from judgelm_jax.kinds import Case, Kind
from judgelm_jax.prompts.arrangements import Arrangement, as_shown
from judgelm_jax.tokens.chat_template import ChatTemplate, chat_ids, takes_system
from judgelm_jax.tokens.prompt_fitting import FittedPrompt, fit_prompt
from judgelm_jax.tokens.tokenization import Tokenizer, prompt_ids
from judgelm_jax.verdicts.score_lines import LineForm

# Of two prompts of nothing, the text that both end with is what the template writes behind every message.
_NOTHINGS = ("a", "b")


@dataclasses.dataclass(frozen=True)
class Asking:
    """How cases of a kind become ids, and the form of the lines that may follow. `template`: of kinds that are asked in a
    conversation."""

    kind: Kind
    words: tuple[str, ...]
    tokenizer: Tokenizer
    template: ChatTemplate | None = None

    def ids(self, case: Case, answers: Sequence[str]) -> list[int]:
        """The prompt of a case with its answers in the order (and as short) as they are given."""
        text = self.kind.prompt(case, answers)
        return prompt_ids(self.tokenizer, text) if self.template is None else self._conversation(text)

    def fit(self, case: Case, order: Arrangement, budget: int) -> FittedPrompt | None:
        """The prompt of a case in an arrangement, of at most `budget` ids: without the oldest turns of a chat where that is too
        long, and with shortened answers where nothing else helps. None: it does not fit at all."""
        whole, answers = case, as_shown(case.answers, order)
        for shorter in case.shorter:
            if len(self.ids(case, answers)) <= budget:
                break
            case, answers = shorter, as_shown(shorter.answers, order)
        fitted = fit_prompt(self.tokenizer, lambda texts: self.ids(case, texts), answers, budget)
        if fitted is None or case is whole:
            return fitted
        before, after = (self.tokenizer.encode_batch(texts) for texts in (as_shown(whole.answers, order), answers))
        left_out = (len(long) - len(short) for long, short in zip(before, after, strict=True))
        return dataclasses.replace(fitted, removed=tuple(map(operator.add, fitted.removed, left_out)))

    def form(self, case: Case) -> LineForm:
        """The lines that may follow the prompt of a case, or its reason and marker."""
        return self.kind.form(case, self.words, None if self.template is None else self._end)

    def messages(self, text: str) -> list[dict[str, str]]:
        """The messages with which a kind that is asked in a conversation shows a prompt."""
        messages = [{"role": "user", "content": text}]
        if self.kind.system and self._takes_system:
            messages.insert(0, {"role": "system", "content": self.kind.system})
        elif self.kind.system:
            messages[0]["content"] = f"{self.kind.system}\n\n{text}"
        return messages

    def _conversation(self, text: str) -> list[int]:
        assert self.template is not None
        return chat_ids(self.template, self.messages(text), self.kind.answering.lead)

    @functools.cached_property
    def _takes_system(self) -> bool:
        assert self.template is not None
        return takes_system(self.template)

    @functools.cached_property
    def _end(self) -> str:
        """The text between the last control token and the response."""
        one, other = (self._conversation(text) for text in _NOTHINGS)
        control = self.tokenizer.control_ids
        common = 0
        while common < min(len(one), len(other)) and one[-1 - common] == other[-1 - common] and one[-1 - common] not in control:
            common += 1
        ids = one[len(one) - common :]
        text = self.tokenizer.decode(ids)
        for end in (text, text.lstrip()):
            if self.tokenizer.encode(end) == ids:
                return end
        raise InputError(
            "the tokenizer writes the end of its chat template otherwise than the template does; take a preset without one"
        )
