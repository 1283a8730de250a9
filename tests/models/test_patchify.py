import pytest
import torch
from torch.testing import assert_close

from vit.models.patchify import PatchTarget, patchify, unpatchify


@pytest.mark.parametrize("patch", [(4, 4), (2, 5), (1, 1), (12, 20)])
def test_taking_apart_and_joining_is_the_identity(patch):
    images = torch.randn(3, 5, 12, 20)
    assert torch.equal(unpatchify(patchify(images, patch), patch, (12, 20)), images)


def test_patches_are_in_raster_order_with_channels_last():
    patches = patchify(torch.arange(2 * 4 * 6).view(1, 2, 4, 6).float(), (2, 3))
    assert patches.shape == (1, 4, 12)
    assert patches[0, 1].tolist() == [3, 27, 4, 28, 5, 29, 9, 33, 10, 34, 11, 35]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="12x20 is not divisible by patch size 5x4"):
        patchify(torch.zeros(1, 5, 12, 20), (5, 4))
    with pytest.raises(ValueError, match="3x5 patches has 15, got 14"):
        unpatchify(torch.zeros(1, 14, 80), (4, 4), (12, 20))


def test_a_normalised_target_has_no_mean_and_unit_variance_and_its_pixels_come_back():
    images, target = torch.randn(3, 5, 12, 20).double() * 3 + 2, PatchTarget((4, 4), 5, None)
    patches = target(images)
    assert_close(patches.mean(-1), torch.zeros(3, 15).double(), rtol=0, atol=1e-12)
    assert_close(patches.var(-1), torch.ones(3, 15).double(), rtol=1e-5, atol=0)
    assert_close(target.pixels(patches, images), patchify(images, (4, 4)))


def test_a_flat_patch_is_zero_and_finite():
    assert torch.equal(
        PatchTarget((4, 4), 1, True)(torch.full((1, 1, 8, 8), 0.7)).abs() < 1e-3, torch.ones(1, 4, 16) > 0
    )


def test_patches_of_one_pixel_are_predicted_as_they_are():
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(PatchTarget((1, 1), 1, None)(images), patchify(images, (1, 1)))
    assert PatchTarget((1, 1), 3, True).normalised
    with pytest.raises(ValueError, match="at least 2 numbers, got 1: set norm_target to false"):
        PatchTarget((1, 1), 1, True)
