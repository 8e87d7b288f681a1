"""Evaluation: answers on a held-out split, saved and scored."""
