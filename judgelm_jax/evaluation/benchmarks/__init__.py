"""Readers of judge benchmarks in their original files: one module each, giving judge records and labels."""
