"""A preset as a kind of judging."""

import dataclasses

from judgelm_jax.errors import InputError
from judgelm_jax.kinds import KINDS, Answering, Kind
from judgelm_jax.presets.reading import JUDGELM, Preset, load_preset
from judgelm_jax.prompts.prompts import Wording
from judgelm_jax.records.conversations import LAST


def kind_of(kind: str, preset: str = JUDGELM, turns: str = LAST) -> Kind:
    """The kind of judging with this name, asked as a preset (by name or file) says; of chats, `turns` says which are judged.

    Raises:
      InputError: there is no such preset, or it does not ask so; `turns` of a kind that has none.
    """
    if turns != LAST:
        whole = KINDS[kind].of_all_turns
        if whole is None:
            raise InputError(f"--turns={turns} is for conversations, not for --kind={kind}; leave it out")
        return dataclasses.replace(kind_of(kind, preset), cases=whole)
    if preset == JUDGELM:
        return KINDS[kind]
    loaded = load_preset(preset)
    fitting = ("single",) if loaded.answers == 1 else ("pair", "conversation")
    if kind not in fitting:
        shows = "one answer" if loaded.answers == 1 else "two answers"
        goes = " or ".join(f"--kind={name}" for name in fitting)
        raise InputError(f"--preset={preset} shows {shows}: it goes with {goes}, not with --kind={kind}")
    *richer, plain = (_wording(template, loaded) for template in loaded.templates)
    own = KINDS[kind]
    return Kind(
        name=kind,
        answers=own.answers,
        cases=own.cases,
        conclude=own.conclude,
        structure=own.structure,
        wording=plain,
        richer=tuple(richer),
        scores=loaded.words,
        answering=Answering(
            lead=loaded.response_prefix,
            marker=loaded.marker,
            reason_tokens=loaded.reason_tokens if loaded.marker else 0,
            ending=loaded.ending,
            winners=loaded.winners,
        ),
        system=loaded.system if loaded.chat_template else "",
        chat=loaded.chat_template,
        sha256=loaded.sha256,
    )


def _wording(template: str, preset: Preset) -> Wording:
    text = template.replace("{system}", preset.system)
    return Wording(
        template=text if preset.chat_template else text + preset.response_prefix,
        needs_reference="{reference}" in template,
    )
