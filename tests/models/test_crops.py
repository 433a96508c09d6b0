"""Ten crops against torchvision's, against hand-placed pixels, and against autograd's own gradient."""

import math

import pytest
import torch
from torchvision.transforms.v2.functional import ten_crop

from fer_voting.models.crops import CROPS, crop_corners, crop_side, ten_crops


def torchvision_crops(x: torch.Tensor) -> torch.Tensor:
    size = [math.floor(side * 5 / 6 + 0.5) for side in x.shape[-2:]]
    return torch.stack(ten_crop(x, size), dim=1)


# Margins of 1 to 19 pixels: on odd ones, torchvision's centre is rounded to even. 5/6 is whole for the first six, has
# a fraction of half a pixel for 9 and 15, and other fractions for the maps of images of 64 and 112 pixels.
@pytest.mark.parametrize("height", [6, 12, 18, 24, 30, 48, 4, 9, 15, 16, 28, 32, 56, 64, 112])
@pytest.mark.parametrize("width", [6, 18, 48, 5, 28, 64])
def test_equal_to_torchvision_bit_for_bit(height: int, width: int) -> None:
    x = torch.randn(3, 4, height, width)
    assert torch.equal(ten_crops(x), torchvision_crops(x))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.uint8])
def test_equal_to_torchvision_in_any_dtype(dtype: torch.dtype) -> None:
    x = (torch.rand(2, 3, 12, 12) * 255).to(dtype)
    assert torch.equal(ten_crops(x), torchvision_crops(x))


def test_order_of_the_positions_by_sentinel_pixels() -> None:
    """A pixel in each corner and one in the middle of a 12x12 map: which crop sees which, and where."""
    x = torch.zeros(1, 1, 12, 12)
    x[0, 0, 0, 0], x[0, 0, 0, 11], x[0, 0, 11, 0], x[0, 0, 11, 11], x[0, 0, 5, 4] = 1, 2, 3, 4, 5
    crops = ten_crops(x)[0, :, 0]
    corners_seen = [[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 4], [0, 0, 0, 0]]
    mirrored = [[2, 0, 0, 0], [0, 1, 0, 0], [0, 0, 4, 0], [0, 0, 0, 3], [0, 0, 0, 0]]
    for crop, expected in zip(crops, corners_seen + mirrored, strict=True):
        assert [crop[y, x].item() for y in (0, 9) for x in (0, 9)] == expected
    # (5, 4) minus the crop's corner; mirrored, the pixel is at (5, 7).
    middle = [(5, 4), (5, 2), (3, 4), (3, 2), (4, 3), (5, 7), (5, 5), (3, 7), (3, 5), (4, 6)]
    assert [tuple((crop == 5).nonzero()[0].tolist()) for crop in crops] == middle


def test_corners_by_hand() -> None:
    assert crop_corners(18, 12, 15, 10) == [(0, 0), (0, 2), (3, 0), (3, 2), (2, 1)]


@pytest.mark.parametrize("side", [6, 12, 48, 600])
def test_crop_side_is_five_sixths(side: int) -> None:
    assert crop_side(side) * 6 == side * 5


@pytest.mark.parametrize(
    ("side", "crop"),
    [(4, 3), (5, 4), (9, 8), (15, 13), (16, 13), (28, 23), (32, 27), (56, 47), (64, 53), (112, 93), (224, 187)],
)
def test_other_sides_are_rounded_and_half_a_pixel_is_rounded_up(side: int, crop: int) -> None:
    assert crop_side(side) == crop


@pytest.mark.parametrize("side", [1, 2, 3])
def test_a_side_whose_crop_would_be_the_whole_is_an_error(side: int) -> None:
    with pytest.raises(ValueError, match=rf"a map of {side} pixels is too small for crops of 5/6 of its side"):
        ten_crops(torch.zeros(1, 1, 48, side))


def test_rounding_is_logged_once_for_a_size(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for _ in range(2):
        ten_crops(torch.zeros(1, 1, 36, 1003))  # a size of no other test
    assert [record.getMessage() for record in caplog.records] == [
        "crops of 836 of 1003 pixels, 0.8335 of the side: 5/6 is not a whole number"
    ]


def test_shape() -> None:
    assert ten_crops(torch.zeros(2, 64, 48, 24)).shape == (2, CROPS, 64, 40, 20)


def test_gradient_is_the_one_of_the_slices() -> None:
    """Sums in another order than autograd's, so equal in float64; whole numbers are equal in any order."""
    x = torch.randint(-4, 5, (3, 5, 18, 12)).double()
    weights = torch.randint(-4, 5, (3, CROPS, 5, 15, 10)).double()
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    (ten_crops(ours) * weights).square().sum().backward()
    (torchvision_crops(theirs) * weights).square().sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize("size", [(6, 6), (4, 9)])
def test_gradcheck(size: tuple[int, int]) -> None:
    x = torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(ten_crops, (x,))


def test_the_operators_keep_torchs_contract() -> None:
    """Schema, fake tensors' shapes and strides, autograd registration: torch's own checks of an operator."""
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    ops = torch.ops.fer_voting
    x = torch.randn(2, 3, 6, 12, requires_grad=True)
    torch.library.opcheck(ops.ten_crops, (x, 5, 10), test_utils=checks)
    torch.library.opcheck(ops.ten_crops_backward, (torch.randn(2, CROPS, 3, 5, 10), 6, 12), test_utils=checks)


def test_gradient_in_bfloat16_is_summed_in_float32() -> None:
    x = torch.randn(2, 3, 12, 12, requires_grad=True)
    weights = torch.randn(2, CROPS, 3, 10, 10).bfloat16()
    (exact,) = torch.autograd.grad(ten_crops(x), x, weights.float())
    half = x.detach().bfloat16().requires_grad_()
    (rounded,) = torch.autograd.grad(ten_crops(half), half, weights)
    torch.testing.assert_close(rounded, exact.bfloat16(), rtol=2**-7, atol=0)  # the last place


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_stays(memory_format: torch.memory_format) -> None:
    x = torch.randn(2, 4, 12, 12).contiguous(memory_format=memory_format)
    assert ten_crops(x).flatten(0, 1).is_contiguous(memory_format=memory_format)


def test_shapes_alone_need_no_data() -> None:
    assert ten_crops(torch.empty(2, 3, 12, 12, device="meta")).shape == (2, CROPS, 3, 10, 10)


def test_an_exported_graph_cuts_the_same_crops_with_torchs_operators_alone() -> None:
    """The traced operator takes another batch than the one of the trace, and maps that are not square."""

    class Crops(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return ten_crops(x)

    batch = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Crops(), (torch.randn(2, 3, 9, 12),), dynamic_shapes=(batch,))
    x = torch.randn(5, 3, 9, 12)
    assert torch.equal(program.module()(x), torchvision_crops(x))
    operators = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert {name.split(".")[0] for name in operators} == {"aten"}


@pytest.mark.slow
def test_compiles_into_one_graph() -> None:
    """Forward and backward, traced whole; `aot_eager` needs no C++ compiler."""
    compiled = torch.compile(ten_crops, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 3, 12, 14, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, CROPS, 3, 10, 12, dtype=torch.float64)
    (eager,) = torch.autograd.grad(ten_crops(x), x, weights)
    crops = compiled(x)
    assert torch.equal(crops, ten_crops(x))
    (gradient,) = torch.autograd.grad(crops, x, weights)
    assert torch.equal(gradient, eager)
