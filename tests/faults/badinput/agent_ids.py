"""Bad agent ids."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class BadId:
    """An agent id that is refused with exit code 2 on the command line. `said`: how the message begins.

    `{}` stands for the argument's number. `in_sql`: PostgreSQL takes it into agents.users.
    """

    id: str
    value: str
    said: str
    in_sql: bool
    said_by_why: str | None = None  # where `why` has other words for it


def _bad_id(name: str, value: str, shown: str | None = None, *, in_sql: bool = True) -> BadId:
    said = f"{repr(value) if shown is None else shown} is not an agent id"
    return BadId(id=name, value=value, said=said, in_sql=in_sql)


AGENT_IDS: tuple[BadId, ...] = (
    BadId(
        id="empty",
        value="",
        said="'' is not an agent id",
        in_sql=True,
        said_by_why="orders are fetched for each agent: which one?",
    ),
    _bad_id("blank", " "),
    _bad_id("blanks-and-tab", " \t ", "' \\t '"),
    _bad_id("leading-blank", " anna"),
    _bad_id("trailing-blank", "anna "),
    _bad_id("inner-blank", "anna bianchi"),
    _bad_id("no-break-space", "anna\u00a0bianchi", "'anna\\xa0bianchi'"),
    _bad_id("zero-width-space", "anna\u200bbianchi", "'anna\\u200bbianchi'"),
    _bad_id("parent", "../../etc/passwd"),
    _bad_id("parent-alone", ".."),
    _bad_id("dot", "."),
    _bad_id("two-dots-inside", "anna..bianchi"),
    _bad_id("absolute", "/etc/passwd"),
    _bad_id("slash", "anna/orders"),
    _bad_id("backslash", "..\\..\\windows", "'..\\\\..\\\\windows'"),
    _bad_id("home", "~root"),
    _bad_id("percent-encoded", "%2e%2e%2fetc"),
    _bad_id("placeholder", "{type}"),
    _bad_id("file-address", "file:///etc/passwd"),
    _bad_id("line-feed", "anna\nerror: forged", "'anna\\nerror: forged'"),
    _bad_id("trailing-line-feed", "anna\n", "'anna\\n'"),
    _bad_id("carriage-return", "anna\rforged", "'anna\\rforged'"),
    _bad_id("carriage-return-line-feed", "anna\r\nX-Forged: 1", "'anna\\r\\nX-Forged: 1'"),
    _bad_id("line-separator", "anna\u2028forged", "'anna\\u2028forged'"),
    _bad_id("escape-colour", "\x1b[31manna", "'\\x1b\\x5b31manna'"),
    _bad_id("escape-title", "\x1b]0;owned\x07anna", "'\\x1b]0;owned\\x07anna'"),
    _bad_id("c1-csi", "\x9b2Janna", "'\\x9b2Janna'"),
    _bad_id("delete-and-backspace", "anna\x7f\x08", "'anna\\x7f\\x08'"),
    _bad_id("right-to-left-override", "anna\u202eihcnaib", "'anna\\u202eihcnaib'"),
    _bad_id("isolate", "\u2066anna\u2069", "'\\u2066anna\\u2069'"),
    _bad_id("composed", "niccol\u00f2", "'niccol\\xf2'"),
    _bad_id("decomposed-twin", "niccolo\u0300", "'niccolo\\u0300'"),
    _bad_id("cyrillic-twin", "\u0430nna", "'\\u0430nna'"),
    _bad_id("full-width-digits", "\uff11\uff12", "'\\uff11\\uff12'"),
    _bad_id("emoji", "anna\U0001f600", "'anna\\U0001f600'"),
    _bad_id("rich-markup", "[red]anna[/red]", "'\\x5bred]anna\\x5b/red]'"),
    _bad_id("rich-link", "[link=http://x]anna[/]", "'\\x5blink=http://x]anna\\x5b/]'"),
    _bad_id("html", "<script>alert(1)</script>", "'\\x3cscript>alert(1)\\x3c/script>'"),
    _bad_id("option", "-rf"),
    _bad_id("long-option", "--all"),
    _bad_id("glob", "*"),
    _bad_id("brackets", "anna[0-9]?", "'anna\\x5b0-9]?'"),
    _bad_id("single-quote", "o'hara", '"o\'hara"'),
    _bad_id("sql", "'; drop table agents.users; --", '"\'; drop table agents.users; --"'),
    _bad_id("double-quote", 'an"na'),
    _bad_id("shell", "$(reboot)"),
    _bad_id("comma", "anna,luca"),
    _bad_id("leading-dot", ".hidden"),
    _bad_id("one-too-long", "a" * 129, f"'{'a' * 40}'…"),
    _bad_id("100-thousand-letters", "a" * 100_000, f"'{'a' * 40}'…"),
    _bad_id("10-million-letters", "a" * 10_000_000, f"'{'a' * 40}'…", in_sql=False),
    BadId(id="nul", value="anna\0", said="argument {} has a NUL character", in_sql=False),
    BadId(id="not-utf-8", value=os.fsdecode(b"anna\xff\xfe"), said="argument {} is not valid UTF-8", in_sql=False),
    BadId(id="lone-surrogate", value="\ud800", said="argument {} is not valid UTF-8", in_sql=False),
)
