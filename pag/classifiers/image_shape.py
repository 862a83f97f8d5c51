"""What an architecture asks of its images, and how the patch-based ones cut them up."""

from pag.foundation.config.section import ConfigError

GRID = 8  # patches per side, as 4×4 patches give on 32×32


def require_image(arch: str, image_shape: tuple[int, ...], smallest: int) -> tuple[int, int, int]:
    """(C, H, W), or ConfigError where these are not images or have a side shorter than `smallest` pixels."""
    if len(image_shape) != 3:
        raise ConfigError(f"{arch} takes images (C, H, W), got shape {image_shape}: for points use mlp")
    channels, height, width = image_shape
    if min(height, width) < smallest:
        raise ConfigError(
            f"{arch} needs images of at least {smallest}x{smallest}, got {height}x{width}: use cnn or rn18"
        )
    return channels, height, width


def patch_size(arch: str, image_shape: tuple[int, ...], most: int = GRID) -> int:
    """The side in pixels of square patches, of which most×most make up the image, or the next smaller grid, down to
    half of that, that divides it.

    With 8: 32 → 4 (8×8 patches), 96 → 12 (8×8), 28 → 4 (7×7), 8 → 1 (8×8).
    """
    _, height, width = require_image(arch, image_shape, smallest=most)
    if height != width:
        raise ConfigError(f"{arch} needs square images, got {height}x{width}: crop them or use rn18")
    grid = next((grid for grid in range(most, most // 2 - 1, -1) if height % grid == 0), None)
    if grid is None:
        raise ConfigError(f"{arch} needs a side divisible by {most // 2} to {most} patches, got {height}: use rn18")
    return height // grid
