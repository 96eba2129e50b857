"""The `sponge` command: arguments in, programs started, results printed. No decisions of its own."""
