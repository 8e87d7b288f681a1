"""Inference: answers from a model, many at a time."""
