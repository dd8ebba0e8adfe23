"""Stand-in: without Kit, 2.x cannot import its envs."""

from isaaclab import state

state.needs_kit_first = True
