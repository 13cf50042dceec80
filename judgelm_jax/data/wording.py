"""The names of the two answers in an explanation, exchanged: `Assistant 1` and `Assistant 2`, `the first response`, ...

A judgment of a pair that is shown in the other order must name its answers anew. All forms are exchanged in one pass. Some
words may or may not name an answer (`the second`, `the latter`, `A is better`): a text with one of them is given up as a
whole, since a wrong guess would praise the wrong answer. The forms are English, as the published judgments are.
"""

import re

_OTHER = {"1": "2", "one": "two", "first": "second", "1st": "2nd", "a": "b", "i": "ii"}
_OTHER |= {other: label for label, other in _OTHER.items()}
_LABEL = re.compile(r"\b(?:(?i:first|second|1st|2nd|one|two)|II?|[AB])\b|(?<!\d)[12](?!\d)")

_ASSISTANT = r"(?:(?i:ass?is?tan?ts?|chatbots?|bots?)|AIs?)"  # with the teacher's slips of the pen
_NOUN = rf"(?:{_ASSISTANT}|(?i:answers?|responses?|reply|replies))"
_LINK = r"(?:[ *_]{0,3}(?:(?i:no|nr|num)\. ?|(?i:number) |\# ?)?|-)"  # within a line: the next may begin with `1.`
_AND = r"(?:['’]s?)?(?:,?\s+(?i:and|or|nor|vs\.?|versus|over|than|as\swell\sas)\s+(?:the\s+)?|\s?[&/+]\s?)(?:\#\s?)?"
_DIGIT = r"[12](?![\d%°^]|[.,:–-]\d|/\d\d|(?!s\b)\w)"
_LETTER = r"(?<![A-Za-z])[AB]\b"
_WORD = r"(?<= )(?i:one|two)\b"
_ROMAN = r"(?<= )II?\b"
_ORDINAL = r"\b(?i:first|second|1st|2nd)\b"


def _listed(label: str) -> str:
    """`1`, `1 and 2`."""
    return rf"{label}(?:{_AND}{label}(?!\s+(?i:other|others|more|additional|further|of)\b))?"


_DESIGNATION = re.compile(
    rf"\b{_NOUN}(?:['’]s)?{_LINK}"
    rf"(?:(?P<digit>{_listed(_DIGIT)})|(?P<letter>{_listed(_LETTER)})|(?P<word>{_listed(_WORD)})|(?P<roman>{_listed(_ROMAN)}))"
    rf"|(?P<ordinal>{_ORDINAL}\s+(?:(?i:AI|given|provided|presented)\s+)?(?:{_ASSISTANT}|(?i:answer|response|reply))\b"
    rf"|{_ORDINAL}\s+(?i:and|or|nor|&)\s+(?:the\s+)?{_ORDINAL}\s+(?:AI\s+)?{_NOUN}\b)"
)

# Before words that look like a designation and are none: `its first answer`, `a second answer`, `to answer 1 of them`.
_POSSESSIVE = re.compile(r"(?:['’]s|s['’]|\b(?i:its|their|his|her|your|my))\s+$")
_ONE_MORE = re.compile(
    r"(?:\b(?i:a|an|any|another|each|every|no)"
    r"|(?:['’]s|s['’]|\b(?i:its|their|his|her))\s+(?!(?i:and|or|than|while|but|vs|with|to|the)\b)\w+)\s+$"
)
_LISTED_BEHIND = re.compile(r"\s*(?:,|through|to)\s*\#?[12AB]\b")
_TO_ANSWER = re.compile(r"(?:\b(?i:to|not|can|could|should|would|will|do|does|did|must|may|might|only)|n['’]t)\s+$")

_NAME = "\N{BULLET}"  # stands for each character of a designation, so that the rest can be searched

# Ordinals that count something else than the two answers. What is not listed here may be an answer.
_COUNTED = re.compile(
    r"""(?ixm)
    \b(?: per | each | every | last | split )[\s-]second\b
    | \b(?: first | second )-(?! assistant | answer | response | mention | list | name | present | place )\w+
    | \w-(?: first | second )\b
    | (?<! \bthe\s )(?<! \bis\s )(?<! \bwas\s ) \bfirst
      (?= [,.;!] | $ | \s+(?: without | then | before | but | by | and\s(?! (?: the\s )? second ) ) )
    | (?: \b(?: was | were | been | it | they | he | she ) | • )\s+first\s+(?! is\b | was\b )(?: \w+s | \w+ed | built | made )\b
    | (?: ^ | [.!?]\s+ )[*_\s-]*second,
    | \b(?: first | second | 1st | 2nd )\s+(?:
        few | two | three | four | five | several | \d+ | n | half | row | column | line | element | item | index | part | step
        | paragraph | sentence | word | letter | character | digit | number | term | time | person | position | century | year
        | day | week | month | array | string | stack | queue | loop | pointer | parameter | argument | clue | language | point
        | bullet | name | date | european | human | people | man | woman | president | king | queen | amendment | lady | world
        | piano | symphony | movement | law | check | condition | grade | level | floor | season | try | use
      )s?\b (?! [\s\#]*[12AB]\b )
    | \bfirst\s+(?: \w+\s+ )?ever\b
    """
)

# What may name an answer and is not exchanged.
_UNSAFE = re.compile(rf"{_ORDINAL}|\b(?i:latter|the\s+former)\b|\#\s?[12]\b|\b[AR][12]\b|[^\W\d_a-zA-Z]\s?[12](?!\d)")
_BY_PLACE = re.compile(
    r"\b(?i:previous|preceding|prior|earlier|later|initial|last|next|following|subsequent|left|top|bottom)\s+" + _NOUN + r"\b"
)
# A label that stands alone, and what before or behind it says that it may name an answer.
_ALONE = re.compile(r"(?<![\w.,])(?:[12](?![\d%°^]|[.,:]\d)|[AB]|One|Two|one|two)\b")
_WORK_BEFORE = re.compile(
    r"\b(?i:solutions?|submissions?|options?|candidates?|models?|systems?|texts?|story|stories|poems?|essays?|versions?|outputs?"
    r"|completions?|generations?|contestants?|participants?|students?|agents?|users?|LLMs?|reviews?|translations?|entry|entries"
    r"|summary|summaries|explanations?|examples?|asistentes?|assistentes?|assistenten?|respuestas?|respostas?|risposte?"
    r"|antwort(?:en)?)" + _LINK + "$"
)
_START_BEFORE = re.compile(r"(?m:^|[.!?:;,]\s+|\b(?i:and|or|than|but|while|whereas|that|both)\s+)$")
_VERB_BEHIND = re.compile(
    r",\s+(?:on|by|however|in|though)\b|\s+(?i:is|are|was|were|does|did|has|had|provid\w+|gave|gives?|offer\w*|lack\w*|fail\w*|receiv\w+|gets?|got|scor\w+"
    r"|answer\w*|beats?|wins?|won|only|also)\b"
)
_AND_BEFORE = re.compile(r"\b(?:and|or|nor|than|while)\s+$")
_OTHER_BEHIND = re.compile(r"\s+(?:and|or|vs\.?|versus|than|over|nor)\s+[AB]\b")
_COMPARED_BEFORE = re.compile(r"\b(?i:unlike|beats?|outperform\w*|prefer\w*|favou?r\w*|(?:better|worse)\sthan)\s+$")
_THAN_BEFORE = re.compile(r"(?<!\bmore)(?<!\bless)(?<!\bfewer)(?<!er)\s(?i:than)\s+$")
_CLOSE_BEHIND = re.compile(r"\s*(?:[.,;!?)]|$)")
# What may name an answer in a text that names none otherwise.
_BARE = re.compile(r"(?<![a-zA-Z\d.,])[12](?![\d%]|[.,]\d)|\bB\b|\b(?i:number)\s+(?i:one|two)\b")

_SENTENCE = re.compile(r"(?:[^.!?\n]|[.!?](?!\s|$))+")
_SCORE = r"(?<![\d.,])(\d{1,2}(?:\.\d+)?)(?![\d,]|\.\d)(?:\s?/\s?10)?"
_SCORE_PAIR = re.compile(rf"{_SCORE}(?:\s*(?:,|&|\band|\bvs\.?|\bversus|\bto|:|–|-)\s*|[ \t]+){_SCORE}(?!\s*(?:[a-z]|%))")
_SCORING = re.compile(r"(?i:scor|rating|receiv|deserv|\b(?:rated?|points?|gets?|got|gives?)\b)|^[\W\d]*$")


def exchange(explanation: str) -> str | None:
    """The explanation with the names of the two answers exchanged; None where that cannot be done with certainty.

    What follows the text's own order stays: enumerations, `the other assistant`, `respectively` behind two names.
    """
    names = list(_DESIGNATION.finditer(explanation))
    roman = {label for match in names if match["roman"] for label in _labels(match)}
    if roman == {"ii"}:
        return None
    if roman == {"i"}:
        names = [match for match in names if not match["roman"]]  # the writer
    labelled = {match.lastgroup for match in names if re.match(_ASSISTANT, match[0])}
    if any(_is_ambiguous(match, labelled) for match in names):
        return None
    exchanged, masked, end = "", "", 0
    for match in names:
        between = explanation[end : match.start()]
        exchanged += between + _LABEL.sub(_other, match[0])
        masked += between + _NAME * len(match[0])
        end = match.end()
    exchanged, masked = exchanged + explanation[end:], masked + explanation[end:]
    if _may_name_an_answer(masked) or (not names and _BARE.search(masked)):
        return None
    for sentence in _SENTENCE.finditer(masked):
        own = [label for match in names if sentence.start() <= match.start() < sentence.end() for label in _labels(match)]
        if len({label < _OTHER[label] for label in own}) < 2 and _lists_in_shown_order(sentence[0]):
            return None
    return exchanged


def _labels(match: re.Match[str]) -> list[str]:
    return [label.lower() for label in _LABEL.findall(match[0])]


def _other(label: re.Match[str]) -> str:
    other = _OTHER[label[0].lower()]
    if label[0].isupper():
        return other.upper()
    return other.capitalize() if label[0][0].isupper() else other


def _before(match: re.Match[str]) -> str:
    return match.string[max(0, match.start() - 40) : match.start()]


def _is_ambiguous(match: re.Match[str], labelled: set[str | None]) -> bool:
    """Whether a designation may be something else. `labelled`: the forms in which the text names assistants."""
    before, text = _before(match), match[0]
    if match.lastgroup == "ordinal":
        return _POSSESSIVE.search(before) is not None or _ONE_MORE.search(before) is not None
    if len(_labels(match)) == 1 and _LISTED_BEHIND.match(match.string, match.end()):
        return True
    if re.match(_ASSISTANT, text):
        return False
    if _POSSESSIVE.search(before) or (match.lastgroup == "letter" and "digit" in labelled):
        return True  # one of several answers of one assistant; a choice, as in `Assistant 1 took answer B`
    if match.lastgroup == "word" and match["word"][0].islower():
        return True  # `answers two questions`
    if not text.lower().startswith("answer") or len(_labels(match)) == 2:
        return False
    # `answers 1 question`, `to answer 2 of them`, `Assistant 1 found the answer 2`
    return text[6] == "s" or _TO_ANSWER.search(before) is not None or (text[0] == "a" and "digit" in labelled)


def _may_name_an_answer(masked: str) -> bool:
    """Whether anything but the masked names may name an answer."""
    if _UNSAFE.search(masked) and _UNSAFE.search(_COUNTED.sub(_NAME, masked)):
        return True
    if any(not _POSSESSIVE.search(_before(match)) for match in _BY_PLACE.finditer(masked)):
        return True
    return any(_is_name_alone(label) for label in _ALONE.finditer(masked))


def _is_name_alone(label: re.Match[str]) -> bool:
    text, before, end = label.string, _before(label), label.end()
    if _WORK_BEFORE.search(before):
        return True
    if label[0] not in "12AB":
        return False
    return bool(
        text.startswith(("'s", "’s"), end)
        or (_START_BEFORE.search(before) and _VERB_BEHIND.match(text, end))
        or (_AND_BEFORE.search(before) and text.startswith(" (", end))
        or _COMPARED_BEFORE.search(before)
        or (_THAN_BEFORE.search(before) and _CLOSE_BEHIND.match(text, end))
        or (label[0] == "A" and _OTHER_BEHIND.match(text, end))
    )


def _lists_in_shown_order(sentence: str) -> bool:
    """Whether a sentence that does not name both answers lists something for both: `respectively`, two scores."""
    if "respectively" in sentence.lower():
        return True
    pairs = [(float(one), float(other)) for one, other in _SCORE_PAIR.findall(sentence)]
    return any(one != other and (one, other) not in ((0, 10), (1, 10)) for one, other in pairs) and bool(
        _SCORING.search(sentence)
    )
