"""MT-Bench's human votes on pairs of two-turn conversations (arXiv 2306.05685)."""

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from judgelm_jax.errors import InputError
from judgelm_jax.evaluation.benchmarks import rules
from judgelm_jax.evaluation.benchmarks.benchmark import (
    Baseline,
    Benchmark,
    Loaded,
    Protocol,
    Scored,
    exchanged,
    find_file,
    imported,
    require,
)
from judgelm_jax.evaluation.formats.conversation import rendered
from judgelm_jax.evaluation.formats.rows import read_rows
from judgelm_jax.records import Record

_PAPER = "arXiv 2306.05685, table 5, as quoted elsewhere"


def read_mt_bench(path: Path, reduction: str = "all_votes") -> Loaded:
    """Reads the votes; those on one question, pair of models and turn are the label of one record.

    The conversations are cut after the turn that was voted on and rendered into question and answers turn by turn; whole they
    stand in `conversation_1` and `conversation_2`. The first vote decides which model is the first answer. Votes of the paper's
    authors, which its agreement leaves out, are left out and counted.

    Raises:
      InputError: the file is not what the benchmark published; names the row.
    """
    file = find_file(path, "human*.parquet", "human*.json*", "*human_judgments*.json*")
    records: dict[str, Record] = {}
    turned_first: dict[str, bool] = {}
    votes: dict[str, list[int | None]] = {}
    authors = 0
    for place, item in read_rows(file):
        if str(item.get("judge")).startswith("author"):
            authors += 1
            continue
        try:
            key, turned, winner = _vote(item)
            if key not in records:
                records[key], turned_first[key] = _record(item, key), turned
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
        votes.setdefault(key, []).append(exchanged(winner) if turned != turned_first[key] else winner)
    if not records:
        raise InputError(f"{file}: holds no votes; fetch the file again")
    loaded = Loaded("pair", [], [], {"converted": 0, "votes_of_authors": authors})
    for key, record in records.items():
        counted = [vote for vote in votes[key] if vote or reduction != "decided_votes"]
        (winner, count), *rest = Counter(votes[key]).most_common()
        majority = 0 if rest and rest[0][1] == count else winner
        label = {
            "question_id": record["question_id"],
            "pair_id": key,
            "winner": majority,
            "votes": [majority] if reduction == "majority" else counted,
            "decided": reduction == "decided_votes",
            "turn": record["turn"],
        }
        loaded.records.append(record)
        loaded.labels.append(label)
    return loaded


def _vote(item: Record) -> tuple[str, bool, int | None]:
    """The id of what was voted on, whether its models stand in the other order than their names, and the winner (1, 2, 0)."""
    require(item, "question_id", "model_a", "model_b", "winner", "turn")
    winner = item["winner"]
    if not isinstance(winner, str) or not (winner in ("model_a", "model_b") or winner.startswith("tie")):
        raise InputError(f"winner is {winner!r}; it is model_a, model_b or begins with tie")
    if item["turn"] not in (1, 2):
        raise InputError(f"turn is {item['turn']!r}; it is 1 or 2")
    first, second = sorted((str(item["model_a"]), str(item["model_b"])))
    key = f"{item['question_id']}/{first}-{second}/turn{item['turn']}"
    return key, str(item["model_a"]) != first, {"model_a": 1, "model_b": 2}.get(winner, 0)


def _record(item: Record, key: str) -> Record:
    require(item, "conversation_a", "conversation_b")
    conversations = [_messages(item[f"conversation_{side}"], item["turn"]) for side in "ab"]
    users, *answers = (
        [message["content"] for message in conversation if message["role"] == role]
        for conversation, role in ((conversations[0], "user"), *((one, "assistant") for one in conversations))
    )
    return {
        "question_id": item["question_id"],
        "pair_id": key,
        "question_body": rendered(users),
        "answer1_body": rendered(answers[0]),
        "answer2_body": rendered(answers[1]),
        "answer1_model_id": item["model_a"],
        "answer2_model_id": item["model_b"],
        "turn": item["turn"],
        "conversation_1": conversations[0],
        "conversation_2": conversations[1],
    }


def _messages(value: object, turn: int) -> list[dict[str, str]]:
    roles = ("user", "assistant") * turn
    if isinstance(value, list) and len(value) >= len(roles):
        found = [message for message, role in zip(value, roles, strict=False) if _is_message(message, role)]
        if len(found) == len(roles):
            return [{"role": message["role"], "content": message["content"]} for message in found]
    raise InputError(f"a conversation is no list of {len(roles)} messages, of user and assistant in turn; fetch the file again")


def _is_message(value: object, role: str) -> bool:
    return isinstance(value, dict) and value.get("role") == role and isinstance(value.get("content"), str)


def read_predictions(paths: Sequence[Path], loaded: Loaded) -> list[Record]:
    """The votes of another judge in the same form, such as the published ones of GPT-4: one a question, pair and turn."""
    records = {record["pair_id"]: record for record in loaded.records}
    judgments: dict[str, Record] = {}
    for place, item in read_rows(paths[0]):
        try:
            key, _, winner = _vote(item)
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
        record = records.get(key)
        if record is None:
            continue  # people did not vote on everything that GPT-4 judged
        if key in judgments:
            raise InputError(f"{place}: a second verdict on {key}; give the votes of one judge")
        if item["model_a"] != record["answer1_model_id"]:
            winner = exchanged(winner)
        # Both orders were judged, and a conflict was written as a tie.
        judgments[key] = imported(record, str(item.get("judge", "")), winner, winner)
    return list(judgments.values())


def _score(labels: Sequence[Record], rows: Sequence[Record | None]) -> Scored:
    scored = rules.agreement("both", "", rules.conflict_is_tie).score(labels, rows)
    assert scored.decided is not None
    credits: list[float | None] = []
    for label, judged in zip(labels, scored.decided, strict=True):
        votes = label["votes"]
        dropped = judged is None or not votes or (judged.winner == 0 and label["decided"])
        credits.append(None if dropped or judged is None else votes.count(judged.winner) / len(votes))
    pairs = [pair for label in labels for pair in itertools.combinations(label["votes"], 2)]
    people = sum(one == other for one, other in pairs) / len(pairs) if pairs else None
    extra = {"people_agreement": people, "people_pairs": len(pairs)}
    return Scored(credits, [float(len(label["votes"])) for label in labels], scored.decided, extra)


_RULE = "the share of people's votes that name the winner of both orders; a conflict of the orders is a tie; both turns"

BENCHMARK = Benchmark(
    name="mt_bench",
    title="MT-Bench human votes on pairs of conversations",
    source="arXiv 2306.05685",
    reductions={
        "all_votes": "every vote, ties among them (setup S1)",
        "decided_votes": "only votes and verdicts that name a winner (setup S2)",
        "majority": "the winner with most votes; a tie where two have as many",
    },
    protocols={"both_orders": Protocol("both", _RULE, _score)},
    read=read_mt_bench,
    read_predictions=read_predictions,
    group="turn",
    baselines=(
        Baseline("GPT-4, both orders", "all votes, turn 1", 0.66, _PAPER, second_hand=True),
        Baseline("GPT-4, both orders", "decided votes, turn 1", 0.85, _PAPER, second_hand=True),
        Baseline("people among themselves", "all votes, turn 1", 0.63, _PAPER, second_hand=True),
        Baseline("people among themselves", "decided votes, turn 1", 0.81, _PAPER, second_hand=True),
    ),
)
