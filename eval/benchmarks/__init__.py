"""Benchmarks, one file or one folder each, which declares `BENCHMARK` (eval/contract.py)."""
