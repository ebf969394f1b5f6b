"""Training, inference and evaluation of one job. Knows nothing of how jobs are scheduled."""
