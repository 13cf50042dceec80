from judgelm_jax.starting import start

raise SystemExit(start("plan"))
