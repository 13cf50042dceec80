"""Judgments with everything that strangers write into texts and names."""

import itertools
import json
import math
import random

_OWN = "document.title='owned'"
HOSTILE = f'</style></script><script>{_OWN}</script><img src=x onerror="{_OWN}"> \'q\' "q" \u202e\u2067 \x00 \ud800'
STRENGTHS = {"alpha": 0.9, f"beta <script>{_OWN}</script>": 0.3, "gamma $\\frac{1}$ |\u202e": 0.1, "delta": -1.0}


def winner(scores):
    return 0 if scores[0] == scores[1] else 1 if scores[0] > scores[1] else 2


def write_judgments(folder, questions, answer=lambda rng: "words " * rng.randint(1, 30)):
    """A judgment in both orders, with probabilities, for every two of four models on each question, and labels beside."""
    rng = random.Random(0)
    judgments, labels = folder / "judgments.jsonl", folder / "labels.jsonl"
    with judgments.open("w") as rows, labels.open("w") as truth:
        for question, (one, other) in itertools.product(range(questions), itertools.combinations(STRENGTHS, 2)):
            difference = STRENGTHS[one] - STRENGTHS[other]
            forward, back = (
                [min(10, max(1, round(5 + sign * (difference + lean) + rng.gauss(0, 1.5)))) for sign in (1, -1)]
                for lean in (0.4, -0.4)
            )
            scores = [(a + b) / 2 for a, b in zip(forward, back, strict=True)]
            chance = 0.9 / (1 + math.exp(scores[1] - scores[0]))
            key = f"{question}/{one[:4]}-{other[:4]}"
            record = {
                "question_id": question,
                "pair_id": key,
                "question_body": f"Question {question} {HOSTILE}",
                "answer1_body": answer(rng),
                "answer2_body": HOSTILE,
                "answer1_model_id": one,
                "answer2_model_id": other,
                "category": ["maths", HOSTILE[:40]][question % 2],
                "reference": {"text": f"Reference {HOSTILE}"},
                "pred_text": f"{forward[0]} {forward[1]}\n{HOSTILE}",
                "winner": winner(scores),
                "scores": scores,
                "status": "ok",
                "order": "both",
                "consistent": winner(forward) == winner(back),
                "probabilities": {"1": chance, "0": 0.1, "2": 0.9 - chance},
                "forward": {
                    "pred_text": f"{forward[0]} {forward[1]}", "scores": forward, "winner": winner(forward), "status": "ok",
                },
                "reversed": {"pred_text": f"{back[1]} {back[0]}", "scores": back, "winner": winner(back), "status": "ok"},
            }  # fmt: skip
            rows.write(json.dumps(record) + "\n")
            truth.write(json.dumps({"question_id": question, "pair_id": key, "winner": 1 if difference > 0 else 2}) + "\n")
    return judgments, labels
