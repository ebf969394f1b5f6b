"""Where and when jobs run. Knows nothing of networks."""
