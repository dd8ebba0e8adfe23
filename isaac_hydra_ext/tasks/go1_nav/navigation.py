"""What both stacks share: targets, commands, progress, arrival, levels and success, in torch alone.

Lives in the process that hosts the simulation. Nothing here waits for the device: sizes never
depend on values, so that thousands of envs on a GPU step without a host synchronisation.

A step reads: `measure` after the physics, before rewards and resets; `begin` for the envs that
reset; `advance` once all positions are those of the next observation.
"""

import torch

SPEED = 0.8  # [m/s] of the command
STOP_WITHIN = 0.3  # [m] from the target the command is to stand
ARRIVE_WITHIN = 0.5  # [m]
MIN_DISTANCE = 2.0  # [m] between the robot and a new target
HEADING_GAIN = 0.5  # [1/s]
MAX_YAW_RATE = 1.0  # [rad/s]
MAX_PROGRESS = 1.0  # [m/s]
CONTACT_FORCE = 1.0  # [N] above which a link touches
NUM_LEVELS = 10
OUTCOME = ("reached", "fell", "path", "straight")  # of an episode; the last two in metres


def velocity_command(
    position_B2: torch.Tensor, heading_B: torch.Tensor, target_B2: torch.Tensor
) -> torch.Tensor:
    """Return the command towards the target, in the body's yaw frame.

    Args:
        position_B2: World x, y of the robot [m].
        heading_B: Its yaw [rad].
        target_B2: World x, y of the target [m].

    Returns:
        [B, 3]: forward and leftward velocity [m/s], yaw rate [rad/s].
    """
    way_B2 = target_B2 - position_B2
    distance_B = way_B2.norm(dim=1)
    speed_B = torch.where(distance_B > STOP_WITHIN, SPEED, 0.0)
    error_B = torch.atan2(way_B2[:, 1], way_B2[:, 0]) - heading_B
    # The angle of the way in the body's frame, wrapped to [-pi, pi].
    error_B = torch.atan2(error_B.sin(), error_B.cos())
    yaw_rate_B = (HEADING_GAIN * error_B).clamp(-MAX_YAW_RATE, MAX_YAW_RATE)
    return torch.stack([speed_B * error_B.cos(), speed_B * error_B.sin(), yaw_rate_B], dim=1)


def progress_rate(before_B: torch.Tensor, now_B: torch.Tensor, step_dt: float) -> torch.Tensor:
    """Return how fast the distance to the target shrinks [m/s], clipped to +-1.

    Args:
        before_B: Distance a step ago [m]; NaN where the target is a new one: 0 is returned.
        now_B: Distance now [m].
        step_dt: Time of a step [s].
    """
    rate_B = ((before_B - now_B) / step_dt).clamp(-MAX_PROGRESS, MAX_PROGRESS)
    return rate_B.nan_to_num(nan=0.0)


def draw_target(position_B2: torch.Tensor, patches_BP2: torch.Tensor) -> torch.Tensor:
    """Draw one of P patches at least 2 m away, or the farthest where all are nearer. [B, 2]."""
    distance_BP = (patches_BP2 - position_B2[:, None]).norm(dim=2)
    score_BP = torch.where(
        distance_BP >= MIN_DISTANCE, 1 + torch.rand_like(distance_BP), distance_BP / MIN_DISTANCE
    )
    chosen_B11 = score_BP.argmax(dim=1)[:, None, None]
    return patches_BP2.gather(1, chosen_B11.expand(-1, 1, 2)).squeeze(1)


def touching_links(force_BLK: torch.Tensor) -> torch.Tensor:
    """Count, per env, the links of which any of K forces [N] is above `CONTACT_FORCE`. [B]."""
    return (force_BLK > CONTACT_FORCE).any(dim=2).sum(dim=1).float()


def is_outside(position_B2: torch.Tensor, half_side: float) -> torch.Tensor:
    """Return which positions are outside the square of this half side [m] around 0. bool [B]."""
    return (position_B2.abs() > half_side).any(dim=1)


class Navigation:
    """Every env's target, the way to it, and what became of its last episode.

    Attributes:
        command_B3: See `velocity_command`.
        target_B2: World x, y [m].
        progress_B: See `progress_rate`; of the last `measure`.
        arrived_B: bool; the target was reached in the last `measure`.
        outcome_BK: `OUTCOME` of the last finished episode, all about its first target: reached
            (before any fall) and fell are 0 or 1, path is how far the robot walked, straight how
            far it came from its start.
    """

    def __init__(self, num_envs: int, step_dt: float, device: str | torch.device) -> None:
        """All envs wait for their first `begin`.

        Args:
            num_envs: B.
            step_dt: Time of a step [s].
            device: Of all tensors.
        """
        self._step_dt, self._measured_at = step_dt, -1
        zeros_B = torch.zeros(num_envs, device=device)
        self.command_B3 = torch.zeros(num_envs, 3, device=device)
        self.target_B2 = torch.zeros(num_envs, 2, device=device)
        self.outcome_BK = torch.zeros(num_envs, len(OUTCOME), device=device)
        self.progress_B, self.arrived_B = zeros_B, zeros_B.bool()
        self._begins_B, self._reached_B = ~zeros_B.bool(), zeros_B.bool()
        self._distance_B = torch.full_like(zeros_B, torch.nan)  # to the target, as measured
        self._whole_way_B = zeros_B  # to the target when it was drawn
        self._start_B2 = self._position_B2 = self.target_B2
        self._path_B, self._straight_B = zeros_B.clone(), zeros_B

    def measure(self, step: int, position_B2: torch.Tensor, fell_B: torch.Tensor) -> None:
        """Take the positions after a step's physics; what else asks in this step changes nothing.

        Args:
            step: Any number that differs between steps.
            position_B2: World x, y of the robots [m].
            fell_B: bool; where this step ended the episode, nothing is reached any more.
        """
        if step == self._measured_at:
            return
        self._measured_at = step
        distance_B = (self.target_B2 - position_B2).norm(dim=1)
        distance_B = distance_B.masked_fill(self._begins_B, torch.nan)  # there is no target yet
        self.progress_B = progress_rate(self._distance_B, distance_B, self._step_dt)
        self.arrived_B = (distance_B < ARRIVE_WITHIN) & ~fell_B
        moved_B = (position_B2 - self._position_B2).norm(dim=1)
        self._path_B = torch.where(self._reached_B, self._path_B, self._path_B + moved_B)
        straight_B = (position_B2 - self._start_B2).norm(dim=1)
        self._straight_B = torch.where(self._reached_B, self._straight_B, straight_B)
        self._distance_B, self._position_B2 = distance_B, position_B2.clone()
        self._reached_B = self._reached_B | self.arrived_B

    def level_moves(self, envs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which of `envs` move up a level, and which down, both bool [len(envs)].

        Up if the episode reached a target; down if it closed less than half of the distance to its
        first. An episode without a step moves nowhere.
        """
        reached, whole_way = self._reached_B[envs], self._whole_way_B[envs]
        closed = whole_way - self._distance_B[envs]  # NaN, and so not less, before any step
        return reached, ~reached & (closed < 0.5 * whole_way)

    def begin(self, envs: torch.Tensor, fell_B: torch.Tensor) -> torch.Tensor:
        """Close the books of the episodes of `envs`; `advance` gives the next ones a target.

        Returns:
            Share of these episodes that reached their first target, a scalar tensor.
        """
        outcome = [self._reached_B, fell_B, self._path_B, self._straight_B]
        self.outcome_BK[envs] = torch.stack([o[envs].float() for o in outcome], dim=1)
        self._begins_B[envs] = True
        return self.outcome_BK[envs, 0].mean()

    def advance(
        self, position_B2: torch.Tensor, heading_B: torch.Tensor, patches_BP2: torch.Tensor
    ) -> None:
        """Draw targets where an episode begins or one was reached, and command the next step.

        Args:
            position_B2: World x, y of the robots [m].
            heading_B: Their yaw [rad].
            patches_BP2: World x, y of the places on each env's tile that may be targets [m].
        """
        begins_B, new_B = self._begins_B, self._begins_B | self.arrived_B
        target_B2 = draw_target(position_B2, patches_BP2)
        self.target_B2 = torch.where(new_B[:, None], target_B2, self.target_B2)
        whole_way_B = (self.target_B2 - position_B2).norm(dim=1)
        self._whole_way_B = torch.where(new_B, whole_way_B, self._whole_way_B)
        self._distance_B = self._distance_B.masked_fill(new_B, torch.nan)
        self._start_B2 = torch.where(begins_B[:, None], position_B2, self._start_B2)
        self._position_B2 = torch.where(begins_B[:, None], position_B2, self._position_B2)
        self._path_B = self._path_B.masked_fill(begins_B, 0.0)
        self._reached_B = self._reached_B & ~begins_B
        self._begins_B = torch.zeros_like(begins_B)
        self.arrived_B = torch.zeros_like(begins_B)
        self.command_B3 = velocity_command(position_B2, heading_B, self.target_B2)
