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
    rows_of,
)
from judgelm_jax.evaluation.formats.rows import read_rows
from judgelm_jax.records.conversations import rendered
from judgelm_jax.records.json_lines import Record

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
    turned = str(item["model_a"]) > str(item["model_b"])
    return _key(item, item["model_a"], item["model_b"]), turned, {"model_a": 1, "model_b": 2}.get(winner, 0)


def _key(item: Record, *models: object) -> str:
    if item["turn"] not in (1, 2):
        raise InputError(f"turn is {item['turn']!r}; it is 1 or 2")
    return f"{item['question_id']}/{'-'.join(sorted(str(model) for model in models))}/turn{item['turn']}"


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
    """The verdicts of a judge on both orders, one row a question, pair and turn, in one of two published forms.

    The votes of the data set (`model_a`, `model_b`, `winner`: a conflict of the orders was written as a tie), or what the
    benchmark's own program writes (`model_1`, `model_2`, and `g1_winner`, `g2_winner`: `model_1`, `model_2`, `tie` or `error`).
    """
    records = {record["pair_id"]: record for record in loaded.records}
    judgments: dict[str, Record] = {}
    for place, item in rows_of(paths):
        try:
            key, first, winners, text = _games(item) if "model_1" in item else _both(item)
        except InputError as error:
            raise InputError(f"{place}: {error}") from error
        record = records.get(key)
        if record is None:
            continue  # people did not vote on everything that GPT-4 judged
        if key in judgments:
            raise InputError(f"{place}: a second verdict on {key}; give the votes of one judge")
        if first != record["answer1_model_id"]:
            winners = [exchanged(winner) for winner in reversed(winners)]  # the game that showed the record's order comes first
        judge = item.get("judge", "")
        named = str(judge[0] if isinstance(judge, list) and judge else judge)  # the judge, and its prompt
        judgments[key] = imported(record, named, *winners, text=text)
    return list(judgments.values())


def _both(item: Record) -> tuple[str, str, list[int | None], str]:
    key, _, winner = _vote(item)
    return key, item["model_a"], [winner, winner], ""


def _games(item: Record) -> tuple[str, str, list[int | None], str]:
    """As of `_both`, of a row with two games."""
    require(item, "question_id", "model_1", "model_2", "g1_winner", "g2_winner", "turn")
    meanings = {"model_1": 1, "model_2": 2, "tie": 0, "error": None}
    named = [item[f"g{game}_winner"] for game in (1, 2)]
    wrong = next((name for name in named if not isinstance(name, str) or name not in meanings), None)
    if wrong is not None:
        raise InputError(f"a game's winner is {wrong!r}; it is {', '.join(meanings)}")
    text = item.get("g1_judgment")
    key = _key(item, item["model_1"], item["model_2"])
    return key, item["model_1"], [meanings[name] for name in named], text if isinstance(text, str) else ""


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
