"""Kinds and presets beside pairs of the default one, and short records of each."""

from judgelm_jax import laboratory

# A judge that gives a reason before its verdict.
REASONING = """
template = "{question} {answer1} or {answer2}? Think, then say.\\n"
verdict = "after"
marker = "So "
reason_tokens = 6
[labels]
"9" = 1
"2" = 2
"""
# What is asked, by name: settings of the judge beside the mode.
ASKED = {
    "single": {"kind": "single"},
    "multi": {"kind": "multi", "arrangements": 2},
    "multimodal": {"kind": "multimodal"},
    "conversation": {"kind": "conversation", "orders": "both"},
    "pandalm": {"preset": "pandalm", "orders": "both"},
    "reasoning": {"preset": "reasoning.toml"},
}


def records_of(kind):
    """Short records whose verdicts differ."""
    answers = [[pair.record["answer1_body"], pair.record["answer2_body"]] for pair in laboratory.make_pairs(12, seed=4)]
    for number in range(6):
        own, more = answers[number], answers[number + 6]
        record = {"question_id": number, "question_body": "Which?", "reference": {"text": more[1]}}
        if kind == "multimodal":
            record["reference"] = {"text": f"{more[1]}<OR>{more[0]}" if number else more[1]}
        if kind == "conversation":
            asked = {"role": "user", "content": "Which?"}
            chats = [[asked, {"role": "assistant", "content": text}] for text in own]
            if number:
                chats = [[*chat, asked, {"role": "assistant", "content": text}] for chat, text in zip(chats, more, strict=True)]
            yield {"question_id": number, **{f"conversation_{place}": chat for place, chat in enumerate(chats, start=1)}}
            continue
        counts = {"single": 1, "multimodal": 1, "multi": 2 + (number > 0), "pair": 2}
        for place, text in enumerate([*own, more[0]][: counts[kind]], start=1):
            record[f"answer{place}_body"] = text
        yield record
