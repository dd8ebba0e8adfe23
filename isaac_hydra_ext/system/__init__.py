"""What any process needs, and what knows nothing of reinforcement learning."""
