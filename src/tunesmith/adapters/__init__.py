"""Adapters: what training made, as folders that PEFT and transformers read."""
