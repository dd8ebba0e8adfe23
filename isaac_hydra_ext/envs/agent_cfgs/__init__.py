"""Other trainers' agent configurations, read as ours."""
