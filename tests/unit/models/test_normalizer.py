"""Running statistics against those of all data at once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isaac_hydra_ext.models import normalizer as normalizer_module
from isaac_hydra_ext.models.normalizer import EPSILON, Normalizer


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    width=st.integers(1, 4),
    shift=st.floats(-1e3, 1e3),
    seed=st.integers(0, 2**31),
)
def test_merged_batches_have_the_statistics_of_all_rows_at_once(
    sizes: list[int], width: int, shift: float, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    batches = [shift * i + torch.randn(n, width, generator=g) for i, n in enumerate(sizes)]
    normalizer = Normalizer(width)
    for batch in batches:
        normalizer.update(batch)
    var, mean = torch.var_mean(torch.cat(batches).double(), dim=0, correction=0)
    assert normalizer.count.item() == sum(sizes)
    torch.testing.assert_close(normalizer.exact_mean, mean, rtol=1e-10, atol=1e-9)
    torch.testing.assert_close(normalizer.exact_var, var, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(normalizer.mean, mean.float())
    expected = torch.where(var > 0, var.sqrt() + EPSILON, 1.0)  # one row has not varied
    torch.testing.assert_close(normalizer.std, expected.float())


def test_two_batches_by_hand() -> None:
    # (1, 3) then (5, 7): mean 4, variance (9 + 1 + 1 + 9) / 4 = 5
    normalizer = Normalizer(1)
    normalizer.update(torch.tensor([[1.0], [3.0]]))
    normalizer.update(torch.tensor([[5.0], [7.0]]))
    assert normalizer.exact_mean.item() == 4.0
    assert normalizer.exact_var.item() == 5.0
    assert normalizer(torch.tensor([4.0])).item() == 0.0


def test_before_the_first_update_it_is_the_identity_to_the_last_bit() -> None:
    x = torch.randn(100, 3) * 1e6
    assert torch.equal(Normalizer(3)(x), x)
    assert torch.equal(Normalizer(3).inverse(x), x)


def test_statistics_still_move_beyond_what_a_float32_can_count() -> None:
    normalizer = Normalizer(1)
    normalizer.update(torch.zeros(4, 1))
    normalizer.count.fill_(2.0**30)
    normalizer.update(torch.full((8, 1), 2.0))
    assert normalizer.count.item() == 2**30 + 8
    # 8 of 2^30 + 8 rows are 2: mean = 16 / (2^30 + 8)
    assert normalizer.exact_mean.item() == 16 / (2**30 + 8)


def test_a_constant_input_becomes_zero_and_not_nan() -> None:
    normalizer = Normalizer(2)
    normalizer.update(torch.full((5, 2), 7.0))
    assert normalizer(torch.full((1, 2), 7.0)).tolist() == [[0.0, 0.0]]
    assert normalizer.std.tolist() == [1.0, 1.0]


def test_a_single_row_has_no_variance() -> None:
    normalizer = Normalizer(1)
    normalizer.update(torch.tensor([[3.0]]))
    assert normalizer.exact_var.item() == 0.0


def test_inverse_undoes_forward() -> None:
    normalizer, x = Normalizer(3), torch.randn(50, 3) * torch.tensor([1.0, 10.0, 100.0])
    normalizer.update(x)
    torch.testing.assert_close(normalizer.inverse(normalizer(x)), x, rtol=1e-5, atol=1e-4)


def test_integer_observations_are_counted_as_numbers() -> None:
    normalizer = Normalizer(1)
    normalizer.update(torch.tensor([[250], [254]], dtype=torch.uint8))
    assert normalizer.exact_mean.item() == 252.0
    assert normalizer.exact_var.item() == 4.0


def test_an_input_that_never_varied_is_not_amplified_when_it_does() -> None:
    normalizer = Normalizer(3)
    normalizer.update(torch.tensor([[0.0, 7.3, 1.0], [0.0, 7.3, 2.0]]).repeat(500, 1))
    assert normalizer.std.tolist()[:2] == [1.0, 1.0] and normalizer.std[2] == 0.5 + EPSILON
    read = normalizer(torch.tensor([[0.1, 7.4, 1.5]]))
    torch.testing.assert_close(read[0, :2], torch.tensor([0.1, 0.1]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.int32])
def test_what_float32_cannot_hold_keeps_its_last_digits(dtype: torch.dtype) -> None:
    far = 2_000_000_000 if dtype != torch.float64 else 5e9
    x = torch.tensor([[0.0], [1.0], [2.0], [5.0]], dtype=torch.float64)
    near, normalizer = Normalizer(1), Normalizer(1, dtype)
    near.update(x)
    normalizer.update((x + far).to(dtype))
    torch.testing.assert_close(
        normalizer((x + far).to(dtype)), near(x.float()), rtol=1e-5, atol=1e-5
    )
    assert normalizer((x + far).to(dtype)).dtype == torch.float32
    assert normalizer.whole_mean.item() == far + 2.0


def test_statistics_of_images_are_computed_a_part_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = torch.randint(0, 256, (37, 48), dtype=torch.uint8)
    whole, parts = Normalizer(48), Normalizer(48)
    whole.update(images)
    monkeypatch.setattr(normalizer_module, "CHUNK_BYTES", 5 * 48 * 8)
    parts.update(images)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], tensor, rtol=1e-12, atol=1e-12)
