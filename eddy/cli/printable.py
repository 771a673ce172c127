"""Text from files and topics that anybody may have written, made safe for a terminal."""

LONGEST = 500
"""Characters of a text that are shown."""


def printable(text: object, longest: int = LONGEST) -> str:
    """The text on one line, cut to `longest` characters. What would not be seen as itself is written as an
    escape of Python: control characters, by which a text could move the cursor or change the terminal, and
    marks that change the direction of writing.
    """
    shown = str(text)
    if len(shown) > longest:
        shown = shown[: longest - 1] + "…"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in shown
    )
