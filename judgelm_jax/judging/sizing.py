"""How much is computed at once: tokens of a prefill, lengths of padding, slots that decode together. Imports no JAX."""

from collections.abc import Mapping

# Tokens of one prefill on one device: enough to fill the device, few enough that activations stay small.
_PREFILL_TOKENS = {"cpu": 8192}
_PREFILL_TOKENS_ACCELERATOR = 16384
# Slots of the cache, of all prompts that decode together, where the free memory of a device is not known.
_CACHE_TOKENS = 32768
_FEWEST_SLOTS, _MOST_SLOTS = 4, 256  # of a device
# Buckets for the length of a prompt in attention and cache, from a power of two to the next: few, and so few programs, where
# attention computes nothing for padding.
_BUCKETS_PER_OCTAVE = {"blocked": 2}
_BUCKETS_PER_OCTAVE_ELSE = 8


def prefill_tokens(platform: str) -> int:
    """The tokens of a device batch, at most, unless one prompt has more."""
    return _PREFILL_TOKENS.get(platform, _PREFILL_TOKENS_ACCELERATOR)


def buckets_per_octave(attention: str) -> int:
    """The number of buckets for the length of a prompt, from a power of two to the next, with this attention backend."""
    return _BUCKETS_PER_OCTAVE.get(attention, _BUCKETS_PER_OCTAVE_ELSE)


def cache_tokens(memory: Mapping[str, int] | None, bytes_per_token: float) -> float:
    """Slots of the cache on one device, of all prompts together. `memory`: what the device says of its own, in bytes."""
    if not memory or "bytes_limit" not in memory:
        return _CACHE_TOKENS
    # Half of what is free: admission and decoding need memory for activations beside the cache.
    return 0.5 * (memory["bytes_limit"] - memory.get("bytes_in_use", 0)) / bytes_per_token


def prompts_with_tree(slots: int) -> int:
    """Prompts of a device batch, at most, behind each of which the cache has `slots` slots for a tree of score lines."""
    return max(1, _CACHE_TOKENS // max(1, slots))


def slot_count(prompts: int, context: int, devices: int, tokens: float, wanted: int | None) -> int:
    """The number of slots that decode together, a multiple of `devices`.

    Args:
      prompts: all that there are.
      context: slots of the cache for each.
      devices: that a batch is split over.
      tokens: slots of the cache on one device, at most.
      wanted: by the user; None: as many as fit.
    """
    count = wanted
    if count is None:
        most = max(_FEWEST_SLOTS, min(_MOST_SLOTS, int(tokens // context))) * devices
        rounds = _divide_up(prompts, most)
        count = _divide_up(prompts, rounds)  # as few as these rounds need, so that the last prompts fill the slots, too
    return _divide_up(count, devices) * devices


def admitted_together(slots: int, devices: int) -> int:
    """Prompts of one prefill into slots: an eighth of them, a multiple of `devices`."""
    return max(devices, slots // 8 // devices * devices)


def visible_lengths(context: int, unstacked: bool) -> list[int]:
    """Lengths, ascending, of which decoding takes one: less of the cache is read while all of its rows are short.

    Not where the cache is unstacked: attention would copy what is a part of it first.
    """
    return sorted({context} | ({context // 4, context // 2} if context >= 1024 and not unstacked else set()))


def _divide_up(number: int, by: int) -> int:
    return -(-number // by)
