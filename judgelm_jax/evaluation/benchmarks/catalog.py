"""The benchmarks by name."""

from judgelm_jax.evaluation.benchmarks import (
    alpaca_eval,
    auto_j,
    faireval,
    judgebench,
    judgelm,
    llmbar,
    mm_vet,
    mt_bench,
    pandalm,
    prometheus,
    rewardbench,
    rewardbench2,
)
from judgelm_jax.evaluation.benchmarks.benchmark import Benchmark

_MODULES = (
    judgelm,
    pandalm,
    llmbar,
    judgebench,
    rewardbench,
    rewardbench2,
    mt_bench,
    auto_j,
    faireval,
    alpaca_eval,
    prometheus,
    mm_vet,
)

BENCHMARKS: dict[str, Benchmark] = {module.BENCHMARK.name: module.BENCHMARK for module in _MODULES}
