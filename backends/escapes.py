"""Text of strangers as a terminal may show it: nothing in it moves the cursor, sets a colour or hides a word."""


def escaped(text: str, kept: str = "") -> str:
    """Return text with an escape for each character that isn't printable, those of ``kept`` aside."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
