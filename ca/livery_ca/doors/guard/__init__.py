"""Before any method runs: who may call it, and how often."""
