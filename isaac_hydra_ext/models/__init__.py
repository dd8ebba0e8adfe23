"""The actor, the critic, and what turns their outputs into actions."""
