"""A loaded judge: records in, judgments out."""

import dataclasses
import hashlib
import itertools
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from judgelm_jax import distributions, sharding, verdicts
from judgelm_jax.checkpoints import Checkpoint, open_checkpoint
from judgelm_jax.errors import InputError
from judgelm_jax.judging import line_tree, score_tree
from judgelm_jax.judging.batching import Prompt
from judgelm_jax.judging.chat import Chat, going_on
from judgelm_jax.judging.config import JudgeConfig
from judgelm_jax.judging.engine import Engine
from judgelm_jax.judging.responses import NOT_FINITE, Response
from judgelm_jax.mesh_config import MeshConfig
from judgelm_jax.model import parameters
from judgelm_jax.records import Record, answers_of, identity, question_identity, reference_of
from judgelm_jax.tokenization import Tokenizer, fit_prompt
from judgelm_jax.verdicts import Verdict

# Records that are sorted by length together. Memory is bounded by a window, whatever the length of the input.
WINDOW = 8192


@dataclasses.dataclass(frozen=True)
class Judgment:
    """One judged record; `row` is the line that the command writes (its fields are described in the README)."""

    row: Record

    @property
    def scores(self) -> list[float] | None:
        """One score an answer, in the record's own order."""
        return self.row["scores"]

    @property
    def winner(self) -> int | None:
        """1..N; 0: a tie; None: there are no scores."""
        return self.row["winner"]

    @property
    def probabilities(self) -> dict[str, float] | None:
        """Mode `distribution`: of the outcomes, "1", "2" and "0" for a tie; else None."""
        return self.row.get("probabilities")

    @property
    def explanation(self) -> str:
        """The text behind the score line (of the forward order, where both were judged)."""
        return self.row["explanation"]

    @property
    def status(self) -> str:
        """`ok`, `truncated`, `unparsed` or `overflow`."""
        return self.row["status"]


class Judge:
    """A model on a mesh, ready to judge. Make it with `Judge.load`."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, settings: JudgeConfig, model_id: str, source: str | None = None):
        """`source`: the checkpoint, to name it in errors; `model_id` when not given."""
        self.engine, self.tokenizer, self.settings, self.model_id = engine, tokenizer, settings, model_id
        self.source = source or model_id

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
        if settings.mode == "distribution":
            tree: line_tree.LineTree | score_tree.ScoreTree = line_tree.build(
                tokenizer, distributions.lines(distributions.grid(settings.score_grid), 2)
            )
        else:
            tree = score_tree.build(tokenizer, verdicts.score_lines(2))
        device_mesh = mesh if isinstance(mesh, Mesh) else sharding.make_mesh(MeshConfig.parse(mesh))
        params = checkpoint.load(parameters.param_shardings(config, device_mesh), settings.dtype)
        engine = Engine(params, config, device_mesh, settings, tree)
        return Judge(engine, tokenizer, settings, model_id, source)

    def compare(self, question: str, answer_1: str, answer_2: str, reference: str | None = None) -> Judgment:
        """Judges one pair in both orders and merges the two verdicts."""
        record = {"question_id": 0, "question_body": question, "answer1_body": answer_1, "answer2_body": answer_2}
        rows = self.prepare([(0, record)], {} if reference is None else {"0": reference}, "both")
        return Judgment(next(self.judge_prepared(rows))[1])

    def judge(self, records: Iterable[Record], references: Mapping[str, str] | None = None) -> Iterator[Judgment]:
        """Judges records (`question_id`, `question_body`, `answer1_body`, `answer2_body`) and yields in their order.

        `references`: texts by `question_id`; they override the records' own.
        """
        for window in windows(enumerate(records)):
            done: dict[int, Record] = dict(self.judge_prepared(self.prepare(window, references or {}, self.settings.orders)))
            for index, _ in window:
                yield Judgment(done[index])

    def chat(self, judgment: Judgment, references: Mapping[str, str] | None = None) -> Chat:
        """A conversation about a judgment of one record: behind its prompt (of the forward order, where both were judged) and
        what the judge wrote, `ask` puts further questions.

        `references`: as they were given to `judge`.

        Raises:
          InputError: the prompt does not fit the context.
        """
        row = judgment.row
        own = row["forward"] if row["order"] == "both" else row
        record = {name: value for name, value in row.items() if name not in verdicts.OUTPUT_FIELDS}
        prepared = self.prepare([(0, record)], references or {}, "forward" if row["order"] == "both" else row["order"])
        if not prepared.prompts:
            raise InputError(f"the record {identity(record)!r} does not fit the context: there is nothing to ask about")
        ids = [*prepared.prompts[0].ids.tolist(), *going_on(self.tokenizer, own["pred_text"])]
        return Chat(self.engine, self.tokenizer, ids, self.settings.seed)

    def prepare(self, window: Sequence[tuple[int, Record]], references: Mapping[str, str], orders: str) -> "Prepared":
        """Renders and tokenizes (index, record) pairs; needs no device, so it can run beside the judging of others.

        Raises:
          InputError: a prompt is too long and `on_overflow` is `error`, or a field has a name that the judgment takes.
        """
        shown = ("forward", "reversed") if orders == "both" else (orders,)
        prepared = Prepared(dict(window), shown, [], {}, {})
        for index, record in window:
            verdicts.kept(record, self.settings.keep_as)  # raises now, before anything is computed
            answers = answers_of(record)
            reference = None
            if self.settings.reference != "none":
                reference = references.get(question_identity(record), reference_of(record))
            for offset, order in enumerate(shown):
                number = index * len(shown) + offset
                in_order = answers if order == "forward" else answers[::-1]
                fitted = fit_prompt(
                    self.tokenizer, self.settings.kind, record["question_body"], in_order, reference, self.engine.prompt_budget
                )
                if fitted is not None and any(fitted.removed) and self.settings.on_overflow != "truncate":
                    fitted = None
                if fitted is None:
                    if self.settings.on_overflow == "error":
                        raise InputError(
                            f"the record {identity(record)!r} does not fit the context: its prompt may have "
                            f"{self.engine.prompt_budget} tokens; pass --on_overflow=truncate or skip"
                        )
                    prepared.verdicts[number] = verdicts.overflow_verdict(order, len(answers))
                    continue
                if tuple(fitted.ids[-len(self.engine.tree.prompt_end) :]) != self.engine.tree.prompt_end:
                    raise AssertionError("a prompt does not end in the tokens behind which the score lines were tokenized")
                removed = fitted.removed if order == "forward" else fitted.removed[::-1]
                prepared.removed[number] = removed
                key = np.frombuffer(_digest(self.settings.seed, identity(record), order)[:8], np.uint32)
                prepared.prompts.append(Prompt(number, np.asarray(fitted.ids, np.int32), key))
        return prepared

    def judge_prepared(self, prepared: "Prepared") -> Iterator[tuple[int, Record]]:
        """Yields (index, judgment) as records get done, those that need no model first."""
        return self.judgments(prepared, self.engine.run(prepared.prompts))

    def judgments(self, prepared: "Prepared", responses: Iterable[Response]) -> Iterator[tuple[int, Record]]:
        """Reads the engine's responses to `prepared`: what `judge_prepared` does beside running the engine."""
        orders = len(prepared.orders)
        judged = dict(prepared.verdicts)

        def finished(number: int) -> Iterator[tuple[int, Record]]:
            index = number // orders
            own = [judged.get(index * orders + offset) for offset in range(orders)]
            if None not in own:
                for offset in range(orders):
                    judged.pop(index * orders + offset)
                yield index, self._judgment(prepared.records[index], [verdict for verdict in own if verdict is not None])

        for number in list(prepared.verdicts):
            if number in judged:
                yield from finished(number)
        for response in responses:
            order = prepared.orders[response.index % orders]
            if response.finish == NOT_FINITE:
                name = identity(prepared.records[response.index // orders])
                raise InputError(
                    f"{self.source}: the model's logits for the record {name!r} "
                    "are not finite (NaN or infinity), so nothing that it says counts; check the checkpoint (a damaged file, a "
                    "training that diverged), or try --dtype=float32"
                )
            judged[response.index] = self._verdict(response, order, prepared.removed[response.index])
            yield from finished(response.index)

    def _verdict(self, response: Response, order: str, removed: tuple[int, ...]) -> Verdict:
        if response.log_probabilities is not None:
            values = distributions.grid(self.settings.score_grid)
            distribution = distributions.from_log_probabilities(response.log_probabilities, values, order)
            line = distributions.lines(values, len(removed))[int(np.argmax(response.log_probabilities))].strip()
            return verdicts.verdict_from_distribution(distribution, line, order, removed)
        text = self.tokenizer.decode(response.ids).strip()
        return verdicts.verdict_from_text(text, order, len(removed), response.finish, removed)

    def _judgment(self, record: Record, own: list[Verdict]) -> Record:
        return verdicts.judgment(
            record,
            own[0] if len(own) == 1 else (own[0], own[1]),
            keep_as=self.settings.keep_as,
            pred_id=uuid.uuid4().hex,
            pred_model_id=self.model_id,
            tstamp=time.time(),
        )


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A window of records, tokenized. A prompt is a record in one arrangement: its number is index × orders + offset."""

    records: dict[int, Record]
    orders: tuple[str, ...]
    prompts: list[Prompt]
    removed: dict[int, tuple[int, ...]]  # tokens cut from each answer, in the record's own order, by number
    verdicts: dict[int, Verdict]  # of the prompts that need no model


def windows(numbered: Iterable[tuple[int, Record]]) -> Iterator[tuple[tuple[int, Record], ...]]:
    """Cuts (index, record) pairs into windows."""
    numbered = iter(numbered)
    while window := tuple(itertools.islice(numbered, WINDOW)):
        yield window


def _digest(*parts: Any) -> bytes:
    """A hash of the parts, each with its length so that no two lists of parts share one."""
    texts = [str(part).encode("utf-8", "surrogatepass") for part in parts]
    return hashlib.sha256(b"".join(len(text).to_bytes(8, "little") + text for text in texts)).digest()
