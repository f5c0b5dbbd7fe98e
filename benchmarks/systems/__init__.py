"""One small adapter a system: starts agent.py in a pane of it, and says how a client gets there."""
