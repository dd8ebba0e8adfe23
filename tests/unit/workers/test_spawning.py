"""How child processes are started."""

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import signal
from isaac_hydra_ext.workers.spawning import spawn

def tell(pipe):
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    pipe.send_bytes(b"blocked" if signal.SIGINT in mask else b"open")

if __name__ == "__main__":
    for _ in range(2):
        process, pipe = spawn(tell, (), "child")
        assert pipe.poll(60)
        print(pipe.recv_bytes().decode())
        process.describe_exit()  # waits for it
    print("open" if not signal.pthread_sigmask(signal.SIG_BLOCK, []) else "blocked")
"""


def test_a_terminals_ctrl_c_is_kept_from_every_child_the_first_one_too(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    line = [sys.executable, str(program)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["blocked", "blocked", "open"], done.stderr
