"""Which images AutoAttack can attack."""


def square_attack_fits(side: int) -> bool:
    """Whether its Square attack under L2 can run on images of `side` pixels: it lays tiles of side // 5 pixels over the
    image, and on a few sizes the last one juts out."""
    tile = side // 5
    return tile > 0 and (tile == 1 or (side - 5 * tile) // 2 + side // tile * tile <= side)
