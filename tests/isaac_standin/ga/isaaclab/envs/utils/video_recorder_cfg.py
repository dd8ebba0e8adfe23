"""Stand-in."""

from isaaclab.utils.configclass import configclass


@configclass
class VideoRecorderCfg:
    """One stream of clips."""

    output_dir: str | None = None
    video_length: int = 200
    video_interval: int = 0
