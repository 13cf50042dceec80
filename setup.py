"""Package definition; tools are configured in pyproject.toml."""

import pathlib

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
COMMANDS = sorted({path.stem for path in (ROOT / "judgelm_jax/commands").glob("*.py")} - {"__init__", "command_line"})

setup(
    name="judgelm-jax",
    version="0.1.0",
    description="Train, run and evaluate LLM judges in JAX, on GPUs, TPUs and CPUs.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["judgelm_jax", "judgelm_jax.*"]),
    package_data={
        "judgelm_jax": ["py.typed"],
        "judgelm_jax.evaluation.report": ["page.css", "page.js"],
        "judgelm_jax.presets": ["*.toml"],
    },
    entry_points={"console_scripts": [f"judgelm-{name} = judgelm_jax.starting:{name}" for name in COMMANDS]},
    install_requires=[
        "absl-py>=2.1,<3",
        'flax==0.12.8; python_version < "3.12"',
        'flax>=0.12.12,<0.13; python_version >= "3.12"',
        "gguf>=0.17,<0.20",
        "grain>=0.2.18,<0.3",
        "huggingface_hub>=1.0,<3",
        "jinja2>=3.1.6,<4",
        "jax>=0.10,<0.12",
        "matplotlib>=3.9,<4",
        "ml_collections>=1.0,<2",
        "ml_dtypes>=0.5,<1",
        "numpy>=2.0,<3",
        "optax>=0.2.6,<0.3",
        "orbax-checkpoint>=0.12,<0.13",
        "protobuf>=5,<8",
        "safetensors>=0.8,<1",
        "scipy>=1.14,<2",
        "sentencepiece>=0.2.1,<0.3",
        "tensorboardX>=2.6.4,<3",
        "tensorstore>=0.1.75,<0.2",
        "tokenizers>=0.22,<1",
        "tqdm>=4.66,<5",
        "transformers>=5.0,<6",
    ],
    extras_require={
        "test": [
            "choix>=0.4,<0.5",
            "evalica>=0.4.2,<0.5",
            "hypothesis>=6.100,<7",
            "inspect-ai>=0.3.100,<0.4",
            "mypy>=1.15,<3",
            "pandas>=2.2,<4",
            "peft>=0.18.1,<0.22",
            "pyarrow>=17,<27",
            "playwright>=1.50,<2",
            "pytest>=8,<10",
            "pytest-xdist>=3.6,<4",
            "ruff>=0.12,<1",
            "scikit-learn>=1.5,<2",
            "statsmodels>=0.14,<1",
            "tensorboard>=2.18,<3",
            "torch==2.13.0",
            "trl>=1.16,<2",
        ],
        "parquet": ["pyarrow>=17,<27"],
        "torch": ["torch>=2.6,<3"],
        "cuda": ["jax[cuda13]>=0.10,<0.12"],
        "tpu": ["jax[tpu]>=0.10,<0.12"],
    },
)
