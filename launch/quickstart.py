from judgelm_jax.commands.quickstart import entry

raise SystemExit(entry())
