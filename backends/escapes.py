"""Text of strangers as a terminal may show it: nothing in it moves the cursor, sets a colour or hides a word."""

LONGEST = 4000  # characters of an error's text


def escaped(text: str, kept: str = "") -> str:
    """Return text with an escape for each character that isn't printable, those of ``kept`` aside."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else _escape(c) for c in text)


def told(error: BaseException) -> str:
    """Return the type of an error and its text, which a stranger's error may be unable to give."""
    return f"{type(error).__name__}: {text_of(error)}"


def text_of(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as second:
        return f"an error whose text raises {type(second).__name__}"
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
