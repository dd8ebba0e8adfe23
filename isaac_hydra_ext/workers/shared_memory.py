"""One block of memory that the learner and all workers map. Used on both sides.

On Linux it is a memfd: an anonymous file that no /dev/shm limit applies to and that is gone with
its last process, however that ended. It is made empty, handed to the workers while they are
spawned (the only time a descriptor can be), and sized once the environments have said their
shapes. Elsewhere (macOS, kernels and sandboxes without memfd) `multiprocessing.shared_memory`
does the job.
"""

import contextlib
import ctypes
import mmap
import os
from collections.abc import Sequence
from multiprocessing import reduction, shared_memory
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isaac_hydra_ext.errors import SharedMemoryError

if TYPE_CHECKING:  # the host of a remote worker maps blocks, and has no need of torch
    import torch

SHM_DIRECTORY = Path("/dev/shm")


class MemfdBlock:
    """A memfd mapping. Pickles only into a process that is being spawned."""

    def __init__(self) -> None:
        """Make an empty one."""
        self.fd = os.memfd_create("isaac_hydra_ext", os.MFD_CLOEXEC)
        self.name = "memfd"

    def __getstate__(self) -> dict[str, Any]:
        """Duplicate the descriptor into the process being spawned."""
        return {"fd": reduction.DupFd(self.fd), "name": self.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the descriptor over, in the spawned process."""
        self.fd, self.name = state["fd"].detach(), state["name"]

    def allocate(self, nbytes: int) -> np.ndarray:
        """Set the size (learner) and map it; a second time it begins anew.

        Returns:
            uint8 [nbytes], zeros.

        Raises:
            SharedMemoryError: The kernel refuses the size.
        """
        try:
            os.ftruncate(self.fd, 0)  # what it held before
            os.ftruncate(self.fd, nbytes)
            return self.attach(self.name, nbytes)
        except OSError as e:
            raise _no_room(nbytes, e) from e

    def attach(self, name: str, nbytes: int) -> np.ndarray:
        """Map what the learner has allocated (workers)."""
        # numpy holds the mapping for as long as any view of it lives; nobody closes it by hand.
        return np.frombuffer(mmap.mmap(self.fd, nbytes), dtype=np.uint8)

    def close(self) -> None:
        """Drop the descriptor; the memory goes with its last mapping."""
        os.close(self.fd)


class NamedBlock:
    """`multiprocessing.shared_memory`, for systems without memfd."""

    def __init__(self) -> None:
        """Make nothing yet: the size is part of creation here."""
        self.name = ""
        self._memory: shared_memory.SharedMemory | None = None
        self._owner = False

    def __getstate__(self) -> dict[str, Any]:
        """Send nothing but the emptiness: workers learn the name in `attach`."""
        return {"name": "", "_memory": None, "_owner": False}

    def allocate(self, nbytes: int) -> np.ndarray:
        """Create the block (learner); as `MemfdBlock.allocate`.

        Raises:
            SharedMemoryError: There is no room for it.
        """
        self.close()  # what it held before
        try:
            self._memory = shared_memory.SharedMemory(create=True, size=nbytes)
        except OSError as e:
            raise _no_room(nbytes, e) from e
        self.name, self._owner = self._memory.name, True
        _reserve(SHM_DIRECTORY / self.name, nbytes)
        return self._bytes(nbytes)

    def attach(self, name: str, nbytes: int) -> np.ndarray:
        """Map the learner's block by name (workers)."""
        self._memory = shared_memory.SharedMemory(name=name)
        return self._bytes(nbytes)

    def _bytes(self, nbytes: int) -> np.ndarray:
        assert self._memory is not None
        assert self._memory.buf is not None
        # By address, and keeping the block: an exported buffer would make SharedMemory complain
        # when it is let go of before its last view.
        address = np.frombuffer(self._memory.buf, np.uint8).ctypes.data
        memory = (ctypes.c_uint8 * nbytes).from_address(address)
        memory.block = self._memory  # type: ignore[attr-defined]
        return np.ctypeslib.as_array(memory)

    def close(self) -> None:
        """Remove the name if this side created it; the memory goes with its last mapping."""
        if self._memory is not None and self._owner:
            self._memory.unlink()


SharedBlock = MemfdBlock | NamedBlock


def make_shared_block() -> SharedBlock:
    """Return an empty block of this platform's kind."""
    try:
        return MemfdBlock()
    except (AttributeError, OSError):  # not this platform's, or not allowed in this container
        return NamedBlock()


def register_with_cuda(parts: Sequence[np.ndarray], device: "torch.device") -> bool:
    """Pin parts of a mapping in this process, so that copies are asynchronous DMA.

    Args:
        parts: No two on one page.
        device: Whose CUDA context is used; another one would take memory of its own.

    Returns:
        Whether it worked, for all or for none; copies are correct either way, only slower.
    """
    import torch

    with torch.cuda.device(device):
        for done, part in enumerate(parts):
            error = torch.cuda.cudart().cudaHostRegister(part.ctypes.data, part.nbytes, 0)  # type: ignore[attr-defined]
            if int(error) != 0:
                unregister_from_cuda(parts[:done], device)
                with contextlib.suppress(RuntimeError):  # this kernel is told of the error, and
                    torch.ones(1, device=device)  # not whichever is the next
                return False
    return True


def unregister_from_cuda(parts: Sequence[np.ndarray], device: "torch.device") -> None:
    """Undo `register_with_cuda`."""
    import torch

    with torch.cuda.device(device):
        for part in parts:
            torch.cuda.cudart().cudaHostUnregister(part.ctypes.data)  # type: ignore[attr-defined]


def _reserve(path: Path, nbytes: int) -> None:
    """Take a block's pages now: on a full /dev/shm the first write would be a SIGBUS.

    Raises:
        SharedMemoryError: Says what is needed, what there is, and what to set.
    """
    if not path.exists():  # macOS: its blocks are no files, and reserved by their creation
        return
    fd = os.open(path, os.O_RDWR)
    try:
        os.posix_fallocate(fd, 0, nbytes)
    except OSError as e:
        room = os.fstatvfs(fd)
        raise SharedMemoryError(
            f"{path.parent}: the rollout buffer needs {nbytes / 2**20:,.1f} MiB, available are "
            f"{room.f_bavail * room.f_frsize / 2**20:,.1f} MiB; give the container more "
            "(docker run --shm-size=...), or lower rollout.envs_per_worker or rollout.steps_per_env"
        ) from e
    finally:
        os.close(fd)


def _no_room(nbytes: int, error: OSError) -> SharedMemoryError:
    return SharedMemoryError(
        f"cannot allocate {nbytes / 2**20:.0f} MiB of shared memory for the rollout buffer "
        f"({error}); lower rollout.envs_per_worker, rollout.steps_per_env or rollout.num_workers"
    )
