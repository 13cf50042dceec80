"""From prompts to token ids: the checkpoint's own tokenizer, chat templates, prompts that fit the context. Imports no JAX."""
