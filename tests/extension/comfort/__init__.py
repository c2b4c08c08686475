"""What benchmark.py declares, and the prompts of what it asks."""
