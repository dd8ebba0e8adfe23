"""PPO, decoupled from the policy that collected."""
