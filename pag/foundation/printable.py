"""Text of people's files in messages of one line."""

import unicodedata


def printable(text: str) -> str:
    """`text` with control characters, line ends and bytes that are no UTF-8 as their escapes, like '\\n'."""
    return "".join(c.encode("unicode_escape").decode() if is_control(c) else c for c in text)


def is_control(character: str) -> bool:
    """Not for a line of text: control characters, line separators and (as surrogates) undecodable bytes."""
    return unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
