"""The parts of bench_poses.py."""
