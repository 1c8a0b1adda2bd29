"""One package per family, one short file per variant, each with configure(settings) and run(settings)."""
