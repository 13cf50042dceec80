from judgelm_jax.commands.evaluate import entry

raise SystemExit(entry())
