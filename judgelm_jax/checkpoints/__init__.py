"""Checkpoints on disk: Hugging Face folders and converted (Orbax) directories, read and written without loss."""

from judgelm_jax.checkpoints.opening import Checkpoint, open_checkpoint

__all__ = ["Checkpoint", "open_checkpoint"]
