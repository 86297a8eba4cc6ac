"""Figures and tables from records, nothing else: a plot never sees a model."""
