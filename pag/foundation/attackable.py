"""Which images AutoAttack can attack."""


def square_attack_fits(height: int, width: int) -> bool:
    """Whether its Square attack under L2 can run on images of height × width pixels: it lays tiles of height // 5
    pixels over the image, and on a few sizes the last one juts out."""
    tile = height // 5
    margin = (height - 5 * tile) // 2
    return tile > 0 and (tile == 1 or all(margin + side // tile * tile <= side for side in (height, width)))
