"""Searches of settings: what is tried, which trainings that makes, what came of them."""
