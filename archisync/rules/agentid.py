"""What an agent id may look like. It goes into paths, lock keys and onto terminals, so it is checked first."""

import re

from archisync.base.errors import UsageError

MAX_AGENT_ID_LENGTH = 128
_SHOWN_CHARS = 40  # enough to recognise a typing mistake, too little to flood a terminal
_AGENT_ID = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._@+-]{{0,{MAX_AGENT_ID_LENGTH - 1}}}")


def check_agent_id(agent_id: str) -> str:
    """The same id. Raises UsageError for one that is not allowed.

    An id has neither `/` nor `..`, so it is always one harmless path component.
    """
    if is_agent_id(agent_id):
        return agent_id
    raise UsageError(
        f"{_shown(agent_id)} is not an agent id",
        hint=f"an agent id is 1 to {MAX_AGENT_ID_LENGTH} ASCII letters, digits and . _ @ + -, "
        "starts with a letter or digit and has no two dots in a row",
    )


def is_agent_id(text: str) -> bool:
    """Whether the text may be an agent id. One that is already in a database may not: plain SQL writes any text."""
    return _AGENT_ID.fullmatch(text) is not None and ".." not in text


def _shown(text: str) -> str:
    """The beginning of the text in quotes, with control characters and the beginnings of markup escaped."""
    shown = ascii(text[:_SHOWN_CHARS]).replace("[", "\\x5b").replace("<", "\\x3c")
    return f"{shown}…" if len(text) > _SHOWN_CHARS else shown
