"""How much is computed at once: tokens of a prefill, lengths of padding, slots that decode together. Imports no JAX."""

from judgelm_jax.judging.batching import bucket_lengths

# Tokens of one prefill on one device: enough to fill the device, few enough that activations stay small.
_PREFILL_TOKENS = {"cpu": 8192}
_PREFILL_TOKENS_ACCELERATOR = 16384
_FEWEST_PREFILL_TOKENS = 256
# Slots of the cache, of all prompts that decode together, where the free memory of a device is not known.
_CACHE_TOKENS = 32768
_MOST_SLOTS = 256  # of a device
# A token of a prefill keeps its keys and values, with padding, and what one layer computes of it: this many times the widths of
# the residual stream and of the MLP. As compilers for GPUs and TPUs say of models of 7 to 33 billion parameters.
_PADDED, _WIDTHS = 1.25, 12
# Buckets for the length of a prompt in attention and cache, from a power of two to the next: few, and so few programs, where
# attention computes nothing for padding.
_BUCKETS_PER_OCTAVE = {"blocked": 2}
_BUCKETS_PER_OCTAVE_ELSE = 8


_TILED = ("pallas", "splash")  # attention backends that compute, and read the cache, in tiles
_TILE, _LARGEST_TILE = 128, 1024
_SMALLEST_PAGE = 16


def prefill_tokens(platform: str) -> int:
    """The tokens of a device batch, at most, unless one prompt has more."""
    return _PREFILL_TOKENS.get(platform, _PREFILL_TOKENS_ACCELERATOR)


def length_buckets(most: int, attention: str) -> list[int]:
    """The lengths, ascending up to `most`, to which prompts are padded in attention and cache, for this attention backend."""
    buckets = bucket_lengths(most, buckets_per_octave(attention))
    if attention not in _TILED:
        return buckets
    # The kernels compute whole tiles; of a length that is twice a prime number of them, the tiles would be small.
    tiled = (_rounded(length, _TILE if length <= _LARGEST_TILE else 2 * _TILE) for length in buckets)
    return sorted({min(length, most) for length in tiled})


def page(attention: str) -> int:
    """Cache slots are a multiple of this: kernels that read pages copy large ones at once."""
    return _TILE if attention in _TILED else _SMALLEST_PAGE


def buckets_per_octave(attention: str) -> int:
    """The number of buckets for the length of a prompt, from a power of two to the next, with this attention backend."""
    return _BUCKETS_PER_OCTAVE.get(attention, _BUCKETS_PER_OCTAVE_ELSE)


def prefill_bytes(cache_bytes: float, widths: int, itemsize: int) -> float:
    """What a prefill needs for each token of a device batch, about. `widths`: of residual stream and MLP on the device."""
    return _PADDED * cache_bytes + _WIDTHS * widths * itemsize


def token_counts(most: int, room: float | None, bytes_per_token: float) -> list[int]:
    """Tokens of a device batch, descending: the most for which `room` bytes should suffice, then halves of it.

    The estimate only saves compilations that cannot fit. None: nobody knows the room, and there is nothing to try.
    """
    if room is None:
        return [most]
    counts = [most]
    while counts[-1] > _FEWEST_PREFILL_TOKENS:
        counts.append(counts[-1] // 2)
    return [count for count in counts if count * bytes_per_token <= room] or counts[-1:]


def cache_tokens(room: float | None, cache_bytes: float, prefill: float) -> float:
    """Slots of the cache on one device, of all prompts together, beside a prefill of so many bytes.

    `room`: bytes; None: nobody knows. `cache_bytes`: of one slot.
    """
    return _CACHE_TOKENS if room is None else max(0.0, room - prefill) / cache_bytes


def fewer(slots: int, devices: int) -> list[int]:
    """Numbers of slots, descending from `slots` by a quarter each to one a device."""
    counts = [slots]
    while counts[-1] > devices:
        counts.append(max(devices, counts[-1] * 3 // 4 // devices * devices))
    return counts


def prompts_with_tree(slots: int, tokens: int) -> int:
    """Prompts of a device batch, at most, behind each of which the cache has `slots` slots for a tree of score lines. `tokens`:
    of a device batch, which the caches of prompts exceed by no more than a few times."""
    return max(1, min(_CACHE_TOKENS, 4 * tokens) // max(1, slots))


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
        most = max(1, min(_MOST_SLOTS, int(tokens // context))) * devices
        rounds = _divide_up(prompts, most)
        count = _divide_up(prompts, rounds)  # as few as these rounds need, so that the last prompts fill the slots, too
    return _divide_up(count, devices) * devices


def admitted_together(slots: int, devices: int) -> int:
    """Prompts of one prefill into slots: an eighth of them, a multiple of `devices`."""
    return max(devices, slots // 8 // devices * devices)


def devices_that_hold(total: float, split: int, capacity: float, heads: int) -> int | None:
    """Over how many devices along `tensor` that which needs `total` bytes where it is split over `split` would fit.

    None: over none that divides the key/value heads.
    """
    for devices in range(split + 1, heads + 1):
        if heads % devices == 0 and total * split / devices <= capacity:
            return devices
    return None


def _rounded(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _divide_up(number: int, by: int) -> int:
    return -(-number // by)
