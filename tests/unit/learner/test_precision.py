"""Which precision `ppo.precision=auto` stands for."""

from types import SimpleNamespace

import pytest
import torch

from isaac_hydra_ext.learner.ppo.precision import matrix_products

from ..builders import run_config


def inside(precision: str, device: str) -> str:
    with matrix_products(precision, torch.device(device)):
        return torch.get_float32_matmul_precision()


@pytest.mark.parametrize(("generation", "found"), [(7, "highest"), (8, "high"), (10, "high")])
def test_auto_is_tf32_where_a_gpu_has_it(
    generation: int, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    properties = SimpleNamespace(major=generation)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    assert inside("auto", "cuda:0") == found
    assert (inside("fp32", "cuda:0"), inside("tf32", "cuda:0")) == ("highest", "high")


def test_auto_is_the_default_and_fp32_on_a_cpu() -> None:
    before = torch.get_float32_matmul_precision()
    assert run_config().ppo.precision == "auto"
    assert inside("auto", "cpu") == "highest"
    assert torch.get_float32_matmul_precision() == before
