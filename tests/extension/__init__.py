"""What CONTRIBUTING.md shows: a reader, a step with its prompt, a recipe, a benchmark with its prompts.

tests/test_extend.py adds them to a copy of the repository.
"""
