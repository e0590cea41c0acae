"""Benchmarks, which print tables, and a soak test."""
