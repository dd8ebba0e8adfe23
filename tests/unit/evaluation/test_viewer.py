"""`appo play --viewer`: a page that shows moving pictures, a window, and newer checkpoints."""

import _thread
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch

from isaac_hydra_ext.checkpoints.file import Checkpoint, load_checkpoint, save_checkpoint
from isaac_hydra_ext.cli.main import main
from isaac_hydra_ext.config.schema import RunConfig
from isaac_hydra_ext.envs.contract import EnvSpec, StepResult
from isaac_hydra_ext.envs.gym_viewer import Controls
from isaac_hydra_ext.envs.registry import make_env
from isaac_hydra_ext.envs.viewing import Pace
from isaac_hydra_ext.errors import (
    CheckpointError,
    ConfigError,
    IsaacHydraExtError,
    MissingDependencyError,
    RenderError,
)
from isaac_hydra_ext.evaluation.browser import Browser
from isaac_hydra_ext.evaluation.playing import Playing
from isaac_hydra_ext.evaluation.viewer import Newer, Over, WatchedPlayer, watch
from isaac_hydra_ext.models.registry import make_policy

from ..builders import run_config
from ..checkpoint_samples import meta
from ..config.test_config_refusals import loaded
from ..gym_samples import PREFIX, Counter, register

register()


def saved(directory: Path, iteration: int, config: RunConfig) -> Checkpoint:
    """A run's checkpoint; each has other weights."""
    env = make_env(config, 0)
    policy = make_policy(config, env.spec)
    policy.flat.add_(0.01 * iteration)
    tensors = {f"policy.{name}": tensor for name, tensor in policy.state_dict().items()}
    about = meta(iteration, config=config.to_dict(), spec=env.spec.to_json())
    env.close()
    directory.mkdir(parents=True, exist_ok=True)
    return load_checkpoint(save_checkpoint(directory, iteration, tensors, about))


def gym_config(env_id: str, kind: str = "gym") -> RunConfig:
    return run_config(1, env={"id": env_id, "kind": kind})


# ------------------------------------------------------------------ the page


class Visitor:
    """Opens the page as soon as its address is said; leaves with Ctrl-C after some messages."""

    def __init__(self, messages: int) -> None:
        self.lines: list[str] = []
        self.status, self.title, self.received = 0, "", [b""]
        self._messages = messages

    def say(self, line: str) -> None:
        self.lines.append(line)
        if line.startswith("viewer: "):
            self.thread = threading.Thread(target=self._visit, args=[line.split()[1]])
            self.thread.start()

    def _visit(self, url: str) -> None:
        import viser
        from websockets.sync.client import connect
        from websockets.typing import Subprotocol

        try:
            with urllib.request.urlopen(url, timeout=30) as page:
                self.status, self.title = page.status, page.read(2000).decode()
            protocol = Subprotocol(f"viser-v{viser.__version__}")
            address = url.replace("http", "ws")
            with connect(address, subprotocols=[protocol], max_size=None) as socket:
                self.received = [socket.recv(timeout=30) for _ in range(self._messages)]
        finally:
            _thread.interrupt_main()


@pytest.fixture
def headless(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


def test_a_mujoco_env_moves_on_a_page_until_ctrl_c(
    tmp_path: Path, headless: None, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mjviser", reason="pip install 'isaac-hydra-ext[viewer]'")
    before = {t for t in threading.enumerate()}
    checkpoint = saved(tmp_path / "a/checkpoints", 7, gym_config("InvertedPendulum-v5"))
    visitor = Visitor(messages=40)
    watch(checkpoint, 0, browser=Browser("127.0.0.1", 18080, visitor.say), say=visitor.say)
    visitor.thread.join(60)
    playing, address, tunnel = visitor.lines
    assert playing == f"playing {checkpoint.path} (iteration 7)"
    port = address.removeprefix("viewer: http://localhost:").split()[0]
    assert address == f"viewer: http://localhost:{port} (Ctrl-C ends it)"
    assert f"ssh -L {port}:localhost:{port} " in tunnel
    assert visitor.status == 200 and "<html" in visitor.title
    assert len({*visitor.received}) > 20, "the scene, then pictures that differ"
    assert capfd.readouterr().out == "", "what viser prints itself"
    left = [t for t in threading.enumerate() if t not in before and not t.daemon and t.is_alive()]
    for thread in left:
        thread.join(10)
    assert not any(thread.is_alive() for thread in left)


def test_on_a_machine_with_a_display_there_is_no_word_of_tunnels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("viser", reason="pip install 'isaac-hydra-ext[viewer]'")
    lines: list[str] = []
    for display, host, count in ((":0", "127.0.0.1", 1), ("", "0.0.0.0", 1), ("", "127.0.0.1", 2)):
        lines.clear()
        monkeypatch.setenv("DISPLAY", display)
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        browser = Browser(host, 18080, lines.append)
        browser.title("model_7")
        browser.open()
        browser.title("model_8")
        browser.close()
        assert len(lines) == count and ("localhost:" in lines[0]) == (host != "0.0.0.0")


class Buttons:
    """Stands in for viser's GUI: presses a button as a browser's user does."""

    def __init__(self) -> None:
        self.gui, self.groups = self, {}

    def add_button_group(self, label: str, options: list[str]) -> Any:
        return self.groups.setdefault(label, Group())

    def press(self, group: str, button: str) -> None:
        event = type("Event", (), {"target": type("Target", (), {"value": button})})
        self.groups[group].callback(event)


class Group:
    callback: Callable[[Any], Any]

    def on_click(self, callback: Callable[[Any], Any]) -> None:
        self.callback = callback


def test_the_buttons_of_the_page() -> None:
    page = Buttons()
    controls = Controls(page)
    assert (controls.paused, controls.speed) == (False, 1.0)
    page.press("Play", "Step")
    assert controls.paused and controls.take("step") and not controls.take("step")
    page.press("Play", "Pause")
    page.press("Speed", "1/4x")
    assert (controls.paused, controls.speed) == (False, 0.25)
    page.press("Play", "Reset")
    assert controls.take("reset") and not controls.paused


@pytest.mark.parametrize(
    ("busy_s", "speed", "waits"),
    [(0.25, 1.0, 0.75), (0.25, 2.0, 0.25), (1.0, 1.0, 0.0), (2.0, 1.0, 0.0)],
)
def test_a_step_takes_as_long_as_what_it_simulates(
    busy_s: float, speed: float, waits: float
) -> None:
    now, slept = [0.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = Pace(1.0, lambda: now[0], sleep)
    for _ in range(4):
        now[0] += busy_s
        pace.wait(speed)
    assert slept == [waits] * 4 if waits else not slept
    if busy_s == 2.0:  # what was lost is not made up for
        now[0] += 0.5
        pace.wait()
        assert slept == [pytest.approx(0.4)]


# ------------------------------------------------------------------ a window


class Windowed(Counter):
    """Would open a window; the reward is the weight that the policy acts with."""

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 50}
    modes: list[str | None] = []
    raises = False

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode
        type(self).modes.append(render_mode)

    def step(self, action: Any) -> Any:
        if self.raises:
            raise ZeroDivisionError("in step")
        return super().step(action)


class Unseen(Windowed):
    metadata = {"render_modes": ["rgb_array"]}


for name, entry in (("Shown", Windowed), ("Unseen", Unseen)):
    gym.register(f"{PREFIX}{name}-v0", entry, max_episode_steps=4)


@pytest.fixture
def window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checkpoint]:
    """A checkpoint whose env opens a window, on a machine that has a display."""
    monkeypatch.setenv("DISPLAY", ":0")
    checkpoint = saved(tmp_path / "run/checkpoints", 1, gym_config(f"{PREFIX}Shown-v0"))
    Windowed.modes.clear()
    yield checkpoint
    Windowed.raises = False


def see(checkpoint: Checkpoint, **options: Any) -> list[str]:
    lines: list[str] = []
    browser = Browser("127.0.0.1", 18080, lines.append)
    watch(checkpoint, 0, browser=browser, say=lines.append, **options)
    return lines


def test_other_envs_open_their_own_window(window: Checkpoint) -> None:
    assert see(window, episodes=3) == [f"playing {window.path} (iteration 1)"]
    assert Windowed.modes == [None, "human"]
    Windowed.modes.clear()
    see(window, episodes=3, num_envs=2)
    assert Windowed.modes == [None, None, "human"], "of the first"


def test_a_real_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pygame", reason="pip install 'isaac-hydra-ext[video]'")
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")  # pygame's, for machines without a screen
    see(saved(tmp_path / "checkpoints", 1, gym_config("CartPole-v1")), episodes=1)


def test_an_error_in_the_env_is_the_callers(window: Checkpoint) -> None:
    Windowed.raises = True
    with pytest.raises(ZeroDivisionError, match="^in step$"):
        see(window)


def test_without_a_display_or_a_window_there_is_one_line(
    window: Checkpoint, tmp_path: Path, headless: None
) -> None:
    with pytest.raises(RenderError, match="UnitTestShown-v0: opens a window, and there is no disp"):
        see(window)
    assert Windowed.modes == [None], "nothing was opened"
    unseen = saved(tmp_path / "u", 1, gym_config(f"{PREFIX}Unseen-v0"))
    with pytest.raises(RenderError, match=r"no window \(render mode human\); it has rgb_array"):
        see(unseen)


def test_a_kind_that_cannot_be_watched_says_what_can_be_done() -> None:
    spec = EnvSpec(1, {}, make_env(gym_config("CartPole-v1"), 0).spec.action, 0.0, 0, True)
    isaac = loaded("env=isaac_ant", "rollout.device=cpu")
    about = {"config": isaac.to_dict(), "spec": spec.to_json(), "iteration": 1}
    checkpoint = Checkpoint(Path("model_1.safetensors"), {}, about)
    with pytest.raises(ConfigError, match=r"not for Isaac Lab.*appo\.play --checkpoint FILE --viz"):
        see(checkpoint)
    with pytest.raises(ConfigError, match="--num_envs=0: must be at least 1"):
        see(checkpoint, num_envs=0)


def test_a_missing_viser_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'isaac-hydra-ext\[viewer\]'"):
        Browser("127.0.0.1", 18080, print).open()
    pytest.importorskip("mujoco", reason="pip install 'isaac-hydra-ext[viewer]'")
    checkpoint = saved(tmp_path / "checkpoints", 1, gym_config("InvertedPendulum-v5"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="shown in the browser by mjviser; install it"):
        see(checkpoint)


# ------------------------------------------------------------------ newer checkpoints


def test_each_new_checkpoint_of_a_training_is_found_once_it_is_whole(tmp_path: Path) -> None:
    config, now = gym_config(f"{PREFIX}Counter-v0"), [0.0]
    first = saved(tmp_path, 5, config)
    saved(tmp_path, 4, config)
    newer = Newer(first.path, lambda: now[0])

    def look(after_s: float = 1.0) -> int | None:
        now[0] += after_s
        found = newer.take()
        return found.meta["iteration"] if found else None

    assert look() is None
    saved(tmp_path, 6, config)
    assert look(0.5) is None, "not yet time to look again"
    assert look(0.5) == 6
    assert look() is None
    saved(tmp_path, 7, config)
    whole = saved(tmp_path, 9, config).path.read_bytes()
    (tmp_path / ".model_8.safetensors.1.tmp").write_bytes(whole[:1000])
    (tmp_path / "model_9.safetensors").write_bytes(whole[:-4])
    assert look() == 7, "9 is damaged"
    (tmp_path / "model_9.safetensors").write_bytes(whole)
    assert look() == 9


def test_the_next_step_is_the_new_policys(tmp_path: Path) -> None:
    config, now = gym_config("Pendulum-v1"), [0.0]
    first = saved(tmp_path, 1, config)
    env = make_env(config, 0)
    policy = make_policy(config, env.spec)
    swapped: list[int] = []
    player = WatchedPlayer(Playing(env, policy), policy, 0, None, Newer(first.path, lambda: now[0]))
    player.on_swap = lambda checkpoint: swapped.append(checkpoint.meta["iteration"])
    player.swap(first)
    player.reset()
    player.step()
    second = saved(tmp_path, 2, config)
    now[0] += 1
    assert isinstance(player.step(), StepResult)
    assert swapped == [1, 2]
    for name, tensor in policy.state_dict().items():
        assert torch.equal(tensor, second.tensors[f"policy.{name}"]), name
    weight = next(name for name in first.tensors if name.endswith("weight"))
    assert not torch.equal(first.tensors[weight], second.tensors[weight])
    saved(tmp_path, 3, run_config(1, policy={"hidden_dims": [8]}))
    now[0] += 1
    with pytest.raises(Over) as ended:
        player.step()
    assert isinstance(ended.value.__cause__, CheckpointError), "of other networks"


def test_following_says_each_checkpoint(
    window: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isaac_hydra_ext.evaluation.viewer.POLL_S", 0.0)
    saved(window.path.parent, 2, gym_config(f"{PREFIX}Shown-v0"))
    first, second = see(window, episodes=1, follow=True)
    assert "iteration 1" in first and "model_2.safetensors (iteration 2)" in second


# ------------------------------------------------------------------ the command line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("eval latest --viewer", "appo eval prints numbers; appo play RUN --viewer shows it"),
        ("play latest --follow", "--follow: of the viewer; appo play RUN --viewer --follow"),
        ("play latest --viewer --video", "--video: not with --viewer"),
        ("play latest --viewer --json", "--json: not with --viewer"),
        ("play latest --viewer --port 70000", "'70000' is not a port, 1 .. 65535"),
        ("play FILE --viewer --host 192.0.2.1", "--host 192.0.2.1: not an address of this machine"),
        ("play FILE --viewer --episodes 0", "--episodes=0: must be at least 1"),
    ],
)
def test_bad_words_are_one_line(
    words: str,
    said: str,
    window: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ["appo", *words.replace("FILE", str(window.path)).split()]
    monkeypatch.setattr(sys, "argv", line)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == IsaacHydraExtError.exit_code + 1
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and said in error


def test_play_shows_it(
    window: Checkpoint, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["appo", "play", str(window.path), "--viewer", "--episodes=2"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"playing {window.path} (iteration 1)\n"
