"""The climb: rung by rung from prompting to tuning, and which rung is good enough."""
