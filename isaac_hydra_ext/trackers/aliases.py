"""Other trainers' names of the same metrics. Used in the learner's main thread.

Sources: RLinf's `docs/source-en/rst_source/examples/embodied/isaaclab.rst` and its decoupled PPO
loss (`rlinf/algorithms/losses.py`), read November 2026. Where a definition differs, so it says in
docs/metrics.md.
"""

# Their name -> our tag.
RLINF = {
    "env/return": "Train/mean_reward",
    "env/episode_len": "Train/mean_episode_length",
    "train/actor/policy_loss": "Loss/surrogate",
    "train/actor/proximal_approx_kl": "Policy/kl",
    "train/actor/approx_kl": "Policy/kl",
    "train/actor/clip_fraction": "Policy/clip_fraction",
    "train/actor/behav_clip_fraction": "Async/truncated_weights",
    "train/actor/entropy_loss": "Loss/entropy",
    "train/actor/grad_norm": "Loss/actor_grad_norm",
    "train/actor/lr": "Loss/learning_rate",
    "train/critic/value_loss": "Loss/value",
    "train/critic/explained_variance": "Loss/explained_variance",
    "train/critic/lr": "Loss/learning_rate",
    "time/step": "Perf/iteration_time",
    "time/actor_training": "Perf/learning_time",
    "time/recv_rollout_trajectories": "Async/learner_idle_s",
}
ALIASES = {"none": {}, "rlinf": RLINF}


def with_aliases(metrics: dict[str, float], names: str) -> dict[str, float]:
    """Return the metrics, and again under the names of another trainer.

    Args:
        metrics: By our tag.
        names: `logging.aliases`.
    """
    same = {theirs: metrics[ours] for theirs, ours in ALIASES[names].items() if ours in metrics}
    return metrics | same
