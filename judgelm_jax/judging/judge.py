"""A loaded judge: records in, judgments out."""

import asyncio
import dataclasses
import functools
import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from judgelm_jax.checkpoints import Checkpoint, open_checkpoint
from judgelm_jax.devices import memory, sharding
from judgelm_jax.devices.mesh_config import MeshConfig
from judgelm_jax.errors import InputError
from judgelm_jax.judging import all_pairs, reasons
from judgelm_jax.judging.asking import Asking
from judgelm_jax.judging.batching import Prompt
from judgelm_jax.judging.chat import Chat, chat_behind
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.engine import Engine
from judgelm_jax.judging.judgment import Judgment
from judgelm_jax.judging.prepared import Prepared, Shown, record_of, sampling_key, windows
from judgelm_jax.judging.responses import NOT_FINITE, Response
from judgelm_jax.judging.trees import Trees
from judgelm_jax.kinds import Case
from judgelm_jax.model import parameters
from judgelm_jax.presets import JUDGELM, kind_of
from judgelm_jax.prompts.arrangements import FORWARD, REVERSED, Arrangement, arrangements, as_shown, in_own_order, name_of
from judgelm_jax.records.json_lines import Record
from judgelm_jax.records.records import check_record, identity, question_identity, reference_of
from judgelm_jax.tokens.chat_template import ChatTemplate, load_chat_template
from judgelm_jax.tokens.tokenization import Tokenizer, going_on
from judgelm_jax.verdicts import distributions, merging, score_lines, verdicts


@dataclasses.dataclass(frozen=True)
class Shared:
    """What a judge and those that it becomes with other settings have in common: one of them computes at a time."""

    lock: threading.RLock = dataclasses.field(default_factory=threading.RLock)
    judges: dict[JudgeConfig, "Judge"] = dataclasses.field(default_factory=dict)


class Judge:
    """A model on a mesh, ready to judge. Make it with `Judge.load`. Several threads may use it."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: Tokenizer,
        settings: JudgeConfig,
        model_id: str,
        source: str | None = None,
        chat_template: ChatTemplate | None = None,
        shared: Shared | None = None,
    ):
        """`source`: the checkpoint, to name it in errors; `model_id` when not given. `chat_template`: of presets that ask in a
        conversation. `shared`: of a judge with the same weights."""
        self._shared = shared or Shared()
        self._shared.judges[settings] = self
        self._chat_template = chat_template
        self._reasoner: Engine | None = None
        self.engine, self.tokenizer, self.settings, self.model_id = engine, tokenizer, settings, model_id
        self.source = source or model_id
        self.kind = kind_of(settings.kind, settings.preset, settings.turns)
        if self.kind.chat and chat_template is None:
            raise ValueError("this preset asks in a conversation: give the chat template")
        own_scores = settings.mode != "distribution" or settings.preset != JUDGELM
        words = self.kind.scores if own_scores else distributions.grid(settings.score_grid)
        self.asking = Asking(self.kind, words, tokenizer, chat_template if self.kind.chat else None)

    @staticmethod
    def load(
        model: str,
        mesh: str | Mesh = "data:-1",
        settings: JudgeConfig | None = None,
        model_id: str | None = None,
        base: str | None = None,
        context: int | None = None,
    ) -> "Judge":
        """Loads an Orbax directory, a Hugging Face directory, a GGUF, a PEFT adapter or a hub id.

        Args:
          mesh: devices along each mesh axis, as `data:2,tensor:4` (-1 takes those that remain), or a mesh with these axes.
          model_id: the name in the judgments; default: the last part of `model`.
          base: of an adapter, in place of the one that it names.
          context: the longest sequence in tokens, instead of the one that the checkpoint states.

        Raises:
          InputError: the checkpoint is broken or not supported, or the mesh does not divide it.
        """
        opened = open_checkpoint(model, base, context)
        return Judge.of_checkpoint(opened, mesh, settings or JudgeConfig(), model_id or Path(model).name, model)

    @staticmethod
    def of_checkpoint(checkpoint: Checkpoint, mesh: str | Mesh, settings: JudgeConfig, model_id: str, source: str) -> "Judge":
        """`load` of a checkpoint that was opened; `source` names it in errors."""
        tokenizer, config = checkpoint.required_tokenizer(), checkpoint.config
        asks_in_conversation = kind_of(settings.kind, settings.preset, settings.turns).chat
        chat_template = load_chat_template(checkpoint.tokenizer_folder, tokenizer) if asks_in_conversation else None
        device_mesh = mesh if isinstance(mesh, Mesh) else sharding.make_mesh(MeshConfig.parse(mesh))
        with memory.explained(lambda: f"the weights of {source} do not fit; split them over more devices (--mesh=tensor:2)"):
            params = checkpoint.load_unstacked(parameters.param_shardings(config, device_mesh), settings.dtype)
        engine = Engine(params, config, device_mesh, settings, Trees(tokenizer, settings.mode, settings.preset))
        return Judge(engine, tokenizer, settings, model_id, source, chat_template)

    def asked(self, settings: JudgeConfig) -> "Judge":
        """This judge with other settings. The weights are the same ones, and the programs of each settings are kept.

        Raises:
          InputError: the settings have another dtype, or a preset that needs a chat template which was not loaded.
        """
        with self._shared.lock:
            found = self._shared.judges.get(settings)
            if found is None:
                if settings.dtype != self.settings.dtype:
                    raise InputError(
                        f"the weights are loaded in {self.settings.dtype}; load the judge anew for {settings.dtype}"
                    )
                if kind_of(settings.kind, settings.preset, settings.turns).chat and self._chat_template is None:
                    raise InputError(f"the preset {settings.preset!r} needs the chat template: load the judge with this preset")
                trees = Trees(self.tokenizer, settings.mode, settings.preset)
                engine = Engine({}, self.engine.config, self.engine.mesh, settings, trees)
                engine.params = self.engine.params
                found = Judge(engine, self.tokenizer, settings, self.model_id, self.source, self._chat_template, self._shared)
            return found

    def compare(
        self,
        question: str,
        answer_1: str,
        answer_2: str,
        reference: str | None = None,
        *,
        mode: str | None = None,
        orders: str = "both",
        temperature: float | None = None,
    ) -> Judgment:
        """Judges one pair, in both orders unless asked otherwise."""
        record = record_of(question, (answer_1, answer_2), reference)
        return next(self.judge([record], kind="pair", mode=mode, orders=orders, temperature=temperature))

    def grade(
        self,
        question: str,
        answer: str,
        reference: str | None = None,
        *,
        mode: str | None = None,
        temperature: float | None = None,
    ) -> Judgment:
        """Grades one answer by a reference that is known to be good; without one, in no published format."""
        policy = "none" if reference is None else "auto"
        record, settings = record_of(question, (answer,), reference), dataclasses.replace(self.settings, reference=policy)
        return next(self.asked(settings).judge([record], kind="single", mode=mode, temperature=temperature))

    def rank(
        self,
        question: str,
        answers: Sequence[str],
        reference: str | None = None,
        *,
        arrangements: int | str | None = None,
        mode: str | None = None,
        temperature: float | None = None,
    ) -> Judgment:
        """Scores and ranks two answers or more in one prompt, in as many balanced orders as `arrangements` says.

        Raises:
          InputError: there are fewer than two answers, or more than the context holds.
        """
        if len(answers) < 2:
            raise InputError(f"there are {len(answers)} answers; a ranking needs two")
        record = record_of(question, answers, reference)
        return next(self.judge([record], kind="multi", mode=mode, arrangements=arrangements, temperature=temperature))

    def judge(
        self,
        records: Iterable[Record],
        references: Mapping[str, str] | None = None,
        *,
        kind: str | None = None,
        mode: str | None = None,
        orders: str | None = None,
        arrangements: int | str | None = None,
        temperature: float | None = None,
    ) -> Iterator[Judgment]:
        """Judges records (`question_id`, `question_body`, `answer1_body`, ...) and yields in their order.

        Args:
          references: texts by `question_id`; they override the records' own.
          kind, mode, orders, arrangements, temperature: in place of those that the judge was loaded with.

        Raises:
          InputError: a record, named by its number from 0, is not what the kind of judging needs; or one does not fit and
            `on_overflow` is `error`.
        """
        judge = self.asked(self.settings.of_call(kind, mode, orders, arrangements, temperature))
        check = judge.kind.structure or functools.partial(check_record, answers=judge.kind.answers)
        for window in windows(enumerate(records)):
            for index, record in window:
                try:
                    check(record)
                except InputError as error:
                    raise InputError(f"record {index}: {error}") from None
            with judge._shared.lock:
                done = dict(judge.judge_prepared(judge.prepare(window, references or {}, judge.settings.orders)))
            for index, _ in window:
                yield Judgment(done[index])

    async def judge_async(
        self, records: Iterable[Record], references: Mapping[str, str] | None = None
    ) -> AsyncIterator[Judgment]:
        """`judge`, for `async for`: the device computes in a thread, and the event loop goes on."""
        judged = self.judge(records, references)
        while (judgment := await asyncio.to_thread(next, judged, None)) is not None:
            yield judgment

    def chat(self, judgment: Judgment, references: Mapping[str, str] | None = None) -> Chat:
        """A conversation about a judgment of one record: behind its prompt (of the forward order, where both were judged) and
        what the judge wrote, `ask` puts further questions.

        `references`: as they were given to `judge`.

        Raises:
          InputError: the prompt does not fit the context, or is that of a preset which says nothing of further questions.
        """
        if self.settings.preset != JUDGELM and not self.kind.chat:
            raise InputError(
                f"the preset {self.settings.preset!r} says nothing of further questions; chat with JudgeLM's own prompts, or a "
                "preset with chat_template = true"
            )
        row = judgment.row
        own = row["forward"] if row["order"] == "both" else row
        record = {name: value for name, value in row.items() if name not in merging.OUTPUT_FIELDS}
        orders = {"both": "forward", "reversed": "reversed"}.get(row["order"])
        prepared = self.prepare([(0, record)], references or {}, orders)
        if not prepared.prompts:
            raise InputError(f"the record {identity(record)!r} does not fit the context: there is nothing to ask about")
        return chat_behind(self.engine, self.asking, prepared, own["pred_text"])

    def prepare(
        self, window: Sequence[tuple[int, Record]], references: Mapping[str, str], orders: str | None = None
    ) -> Prepared:
        """Renders and tokenizes (index, record) pairs; needs no device, so it can run beside the judging of others.

        `orders`: of two answers; None: forward, or what `settings.arrangements` says.

        Raises:
          InputError: a prompt is too long and `on_overflow` is `error`, or a record is not what the kind of judging needs.
        """
        prepared = Prepared(dict(window), {}, [], [], {}, {})
        for index, record in window:
            merging.kept(record, self.settings.keep_as)  # raises now, before anything is computed
            reference = references.get(question_identity(record), reference_of(record))
            cases = self.kind.cases_of(record, reference, self.settings.reference)
            shown = [
                Shown(index, number, order)
                for number, case in enumerate(cases)
                for order in self._arrangements(record, case, orders)
            ]
            if self.settings.on_overflow == "pairs" and not all(self._fits(cases[one.case], one.order) for one in shown):
                prepared.by_pairs[index] = len(cases[0].answers)
                cases = all_pairs.cases(cases[0])
                shown = [Shown(index, number, order) for number in range(len(cases)) for order in (FORWARD, REVERSED)]
            prepared.cases[index] = cases
            for one in shown:
                self._add_prompt(prepared, one, cases[one.case])
        return prepared

    def _fits(self, case: Case, order: Arrangement) -> bool:
        """Whether a prompt with whole answers fits; two answers are always shown together."""
        if len(case.answers) == 2:
            return True
        return len(self.asking.ids(case, as_shown(case.answers, order))) <= self._budget(self.asking.form(case))

    def _budget(self, form: score_lines.LineForm) -> int:
        """The most tokens of a prompt, which leaves room for a reason where one comes before the line."""
        reason = 0
        if self.kind.answering.marker is not None and self.settings.mode != "explain":
            reason = self.kind.answering.reason_tokens + len(going_on(self.tokenizer, self.kind.answering.marker))
        budget = self.engine.prompt_budget(form) - reason
        if budget < 1:
            raise InputError(
                f"a reason may have {self.kind.answering.reason_tokens} tokens, which leaves no room for a prompt in the "
                f"context of {self.engine.config.context}; choose a smaller reason_tokens in the preset"
            )
        return budget

    def _arrangements(self, record: Record, case: Case, orders: str | None) -> tuple[Arrangement, ...]:
        wanted, seed = self.settings.arrangements, self.settings.seed
        return arrangements(len(case.answers), orders=orders, wanted=wanted, identity=identity(record), seed=seed)

    def _add_prompt(self, prepared: Prepared, shown: Shown, case: Case) -> None:
        """Adds the prompt of a case in one arrangement, or its verdict where no prompt fits."""
        record, number, order = prepared.records[shown.record], len(prepared.shown), shown.order
        prepared.shown.append(shown)
        form = self.asking.form(case)
        budget = self._budget(form)
        fitted = self.asking.fit(case, order, budget)
        if fitted is not None and any(fitted.removed) and self.settings.on_overflow in ("skip", "error"):
            fitted = None
        if fitted is None:
            if self.settings.on_overflow == "error":
                raise InputError(
                    f"the record {identity(record)!r} does not fit the context: its prompt may have {budget} tokens; pass "
                    "--on_overflow=truncate or skip"
                )
            prepared.verdicts[number] = verdicts.overflow_verdict(order)
            return
        if self.kind.answering.marker is None:
            self.engine.trees.check_end(form, fitted.ids, identity(record))
        parts = (self.settings.seed, identity(record), name_of(order), *([shown.case] if shown.case else []))
        key = sampling_key(*parts)
        prepared.shown[number] = dataclasses.replace(shown, removed=in_own_order(fitted.removed, order), form=form)
        prepared.prompts.append(Prompt(number, np.asarray(fitted.ids, np.int32), key, form))

    def judge_prepared(self, prepared: Prepared) -> Iterator[tuple[int, Record]]:
        """Yields (index, judgment) as records get done, those that need no model first."""
        return self.judgments(prepared, self.responses(prepared))

    def responses(self, prepared: Prepared) -> Iterator[Response]:
        """What the model says to all prompts, in the order in which they are done; behind reasons, which are written first,
        where the kind says its verdict there."""
        if self.kind.answering.marker is None or self.settings.mode == "explain":
            return self.engine.run(prepared.prompts)
        if self._reasoner is None:
            self._reasoner = reasons.make_engine(self.engine, self.kind.answering.reason_tokens)
        return reasons.run(self.engine, self._reasoner, self.tokenizer, prepared, self.kind.answering.marker)

    def judgments(self, prepared: Prepared, responses: Iterable[Response]) -> Iterator[tuple[int, Record]]:
        """Reads the engine's responses to `prepared`: what `judge_prepared` does beside running the engine."""
        numbers: dict[int, list[int]] = {}  # of each record, its prompts that are not done yet, and those that are
        for number, shown in enumerate(prepared.shown):
            numbers.setdefault(shown.record, []).append(number)
        judged = dict(prepared.verdicts)
        waiting = {index: sum(number not in judged for number in own) for index, own in numbers.items()}

        def finished(index: int) -> tuple[int, Record]:
            own = [(prepared.shown[number].case, judged.pop(number)) for number in numbers[index]]
            cases = prepared.cases[index]
            by_case = [[verdict for number, verdict in own if number == case] for case in range(len(cases))]
            if index in prepared.by_pairs:
                own_verdicts, more = all_pairs.conclude(prepared.by_pairs[index], by_case)
            else:
                own_verdicts, more = self.kind.conclude(cases, by_case)
            return index, self._judgment(prepared.records[index], own_verdicts, more)

        for index, count in waiting.items():
            if count == 0:
                yield finished(index)
        for response in responses:
            shown = prepared.shown[response.index]
            if response.finish == NOT_FINITE:
                name = identity(prepared.records[shown.record])
                raise InputError(
                    f"{self.source}: the model's logits for the record {name!r} "
                    "are not finite (NaN or infinity), so nothing that it says counts; check the checkpoint (a damaged file, a "
                    "training that diverged), or try --dtype=float32"
                )
            judged[response.index] = self._verdict(response, shown, prepared.cases[shown.record][shown.case])
            waiting[shown.record] -= 1
            if waiting[shown.record] == 0:
                yield finished(shown.record)

    def _verdict(self, response: Response, shown: Shown, case: Case) -> verdicts.Verdict:
        form, begun = shown.form, self.kind.begun(case)
        assert form is not None
        reason = response.reason
        if reason is not None:
            begun = f"{begun}{reason}{self.kind.answering.marker}".removesuffix(form.begins)
        if response.log_probabilities is not None:
            text = begun + form.begins + form.likeliest(response.log_probabilities)
            distribution: distributions.AnyDistribution
            if form.winners is None:
                distribution = distributions.from_log_probabilities(response.log_probabilities, form.words, shown.order)
            else:
                distribution = distributions.from_labels(response.log_probabilities, form.winners, shown.order)
            return verdicts.verdict_from_distribution(distribution, text, shown.order, shown.removed, (reason or "").strip())
        # Behind the end of the prompt, so that a space with which the response begins is not lost.
        end = self.engine.trees.of(form).prompt_end
        text = self.tokenizer.decode((*end, *response.ids))[len(self.tokenizer.decode(end)) :]
        reading = self.kind.reading(case, form)
        return verdicts.verdict_from_text((begun + text).strip(), shown.order, response.finish, shown.removed, reading)

    def _judgment(self, record: Record, own: Sequence[verdicts.Verdict], more: Record) -> Record:
        return merging.judgment(
            record,
            own,
            more=more,
            keep_as=self.settings.keep_as,
            pred_preset=None if self.settings.preset == JUDGELM else self.settings.preset,
            pred_id=uuid.uuid4().hex,
            pred_model_id=self.model_id,
            tstamp=time.time(),
        )
