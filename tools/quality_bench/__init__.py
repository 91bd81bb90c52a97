"""The parts of tools/bench_quality.py."""
