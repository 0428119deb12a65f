import torch

from training.augment import aligned_crops, resized_crops


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_aligned_crops_move_a_group_as_one_and_change_no_pixel() -> None:
    clean = torch.randint(0, 200, (5, 3, 12, 12), dtype=torch.uint8)
    crops = aligned_crops(torch.stack([clean, clean + 7], dim=1), 8, generator())
    assert crops.shape == (5, 2, 3, 8, 8)
    torch.testing.assert_close(crops[:, 1] - crops[:, 0], torch.full((5, 3, 8, 8), 7 / 255))
    assert set((crops[:, 0] * 255).round().flatten().tolist()) <= set(clean.flatten().float().tolist())


def test_aligned_crops_differ_between_images() -> None:
    image = torch.arange(144, dtype=torch.uint8).view(1, 1, 1, 12, 12).expand(16, 1, 3, 12, 12)
    crops = aligned_crops(image, 4, generator())
    assert len({tuple(crop.flatten().tolist()) for crop in crops}) > 8


def test_resized_crops_stay_in_range_and_follow_the_generator() -> None:
    images = torch.randint(0, 256, (6, 3, 20, 20), dtype=torch.uint8)
    crops = resized_crops(images, 16, 0.4, generator(1))
    assert crops.shape == (6, 3, 16, 16)
    assert crops.min() >= 0
    assert crops.max() <= 1
    torch.testing.assert_close(crops, resized_crops(images, 16, 0.4, generator(1)), rtol=0, atol=0)
    assert not torch.equal(crops, resized_crops(images, 16, 0.4, generator(2)))


def test_whole_area_crops_are_the_image_or_its_mirror() -> None:
    ramp = torch.linspace(0, 255, 16)
    across, down = ramp.expand(16, 16), ramp.view(16, 1).expand(16, 16)
    images = torch.stack([across, down, down]).to(torch.uint8).expand(32, 3, 16, 16)
    mirrored = set()
    for image, crop in zip(images.float() / 255, resized_crops(images, 16, 1.0, generator()), strict=True):
        # the aspect is still drawn, to 3:4 at most, so crop and image differ a little; an upside-down one by a third
        errors = [(crop - image).abs().mean().item(), (crop - image.flip(-1)).abs().mean().item()]
        assert min(errors) < 0.06
        mirrored.add(errors[1] < errors[0])
    assert mirrored == {False, True}
