"""The cache as pages, for kernels that read only the used part of it.

```
cache [L, B, K, T, D]   layer 0, row 0, head 0        layer 0, row 0, head 1        ...
pages                   | 0 | 1 | 2 | 3 |             | 4 | 5 | 6 | 7 |             ...
```
The slots of one head of one row are contiguous, so they are pages as they are: a kernel for paged caches finds them by
index, in the stacked cache of all layers, and nothing is copied. One row of such a kernel is one key/value head of one row.
"""

import math

import jax
import jax.numpy as jnp

PAGE = 16  # slots of the smallest page: the least that a tile of either kind of hardware has


def page_size(slots: int, most: int) -> int:
    """Slots of a page: the largest power of two that divides `slots`, at most `most` (a power of two).

    Raises:
      ValueError: it would be smaller than a tile.
    """
    size = math.gcd(slots, most)
    if size < PAGE:
        raise ValueError(f"a cache of {slots} slots has no pages; the slots must be a multiple of {PAGE}")
    return size


def table(layer: jax.Array, rows: int, pages: int, multiple: int) -> jax.Array:
    """int32 [rows, entries]: the numbers of the pages of each row and head of `layer`, each of which has `pages`.

    Padding to a `multiple` of entries repeats a row's last page, whose slots are never used from there.
    """
    entries = -(-pages // multiple) * multiple
    first = (layer * rows + jnp.arange(rows, dtype=jnp.int32)) * pages
    return first[:, None] + jnp.minimum(jnp.arange(entries, dtype=jnp.int32), pages - 1)


def as_pages(cache: jax.Array, size: int) -> jax.Array:
    """[1, pages, size, D] of a cache [L, B, K, T, D], or [1, pages, size] of its scales [L, B, K, T]: a view."""
    return cache.reshape(1, -1, size, *cache.shape[4:])
