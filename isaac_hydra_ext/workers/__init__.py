"""The worker processes: spawned, spoken to, watched, ended."""
