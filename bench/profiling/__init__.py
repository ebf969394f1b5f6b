"""What networks cost: operations, time, memory."""
