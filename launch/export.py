from judgelm_jax.commands.export import entry

raise SystemExit(entry())
