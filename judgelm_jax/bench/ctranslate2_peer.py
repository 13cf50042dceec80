"""CTranslate2, a fast engine for CPUs and NVIDIA GPUs, as a peer of judging: the same weights, dtype and threads."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from judgelm_jax.bench.judge_suite import Generate


def ctranslate2_generate(folder: Path, scratch: Path, device: str, dtype: str, size: int) -> Generate:
    """Converts a Hugging Face folder into `scratch` and generates greedily in batches of like lengths, at most `size` each.

    `device`: `cpu` or `cuda`. `dtype`: float32 or bfloat16; on CPUs it computes in float32 only.

    Raises:
      ImportError: ctranslate2, PyTorch or transformers is not installed.
    """
    import ctranslate2
    import transformers
    from ctranslate2.converters import TransformersConverter

    transformers.logging.disable_progress_bar()
    TransformersConverter(str(folder)).convert(str(scratch), quantization=dtype, force=True)
    names = json.loads((scratch / "vocabulary.json").read_text(encoding="utf-8"))
    threads = os.cpu_count() or 1
    generator = ctranslate2.Generator(str(scratch), device=device, compute_type=dtype, inter_threads=1, intra_threads=threads)

    def generate(prompts: Sequence[np.ndarray], new_tokens: int) -> list[list[int]]:
        results = generator.generate_batch(
            [[names[i] for i in prompt.tolist()] for prompt in prompts],  # sorted by length before they are cut into batches
            max_batch_size=size,
            max_length=new_tokens,
            sampling_topk=1,
            include_prompt_in_result=False,
        )
        return [result.sequences_ids[0] for result in results]

    return generate
