"""Figures, measured side by side: each module is a scenario, results/ holds what was seen."""
