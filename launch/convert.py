from judgelm_jax.commands.convert import entry

raise SystemExit(entry())
