"""What CONTRIBUTING.md shows: a reader, a step with its prompt, a recipe; tests/test_extend.py adds them to a copy."""
