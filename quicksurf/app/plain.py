"""Text fit for a terminal, a log and a line: names of files may hold anything, escape sequences included."""

MAX_LINE = 1200  # characters: what was given is repeated in messages, however long it was


def plain(text: str, limit: int = MAX_LINE) -> str:
    """Write control characters, marks of direction and half characters of `text` as escapes; cut to `limit`."""
    if len(text) > 4 * limit:
        text = f"{text[: 2 * limit]}…{text[-2 * limit :]}"
    spelt = "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )
    if len(spelt) <= limit:
        return spelt
    return f"{spelt[: limit // 2]} … {spelt[-(limit // 4) :]}"
