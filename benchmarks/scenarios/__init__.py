"""One small module a scenario: what is done, how often, and what is written down of it."""
