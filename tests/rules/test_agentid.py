"""Agent ids: what is allowed, and what an error message may show."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archisync.base.errors import ExitCode, UsageError
from archisync.rules.agentid import MAX_AGENT_ID_LENGTH, check_agent_id


@pytest.mark.parametrize(
    "agent_id", ["a", "7", "agent-1", "service-account", "m.rossi+x@example.com", "A_b", "a" * 128]
)
def test_ordinary_ids_are_returned_unchanged(agent_id: str) -> None:
    assert check_agent_id(agent_id) == agent_id


@pytest.mark.parametrize(
    "agent_id",
    [
        "",
        "-rf",
        ".hidden",
        "a/b",
        "a..b",
        "../x",
        "a b",
        "a\n",
        "a\0",
        "é",
        "٣",
        "a" * 129,
        "{agent}",
        "a%2e",
        "a\\b",
        "a:b",
    ],
)
def test_other_ids_are_refused(agent_id: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_agent_id(agent_id)
    assert refused.value.exit_code is ExitCode.USAGE
    assert refused.value.message.endswith(" is not an agent id")
    assert refused.value.hint == (
        "an agent id is 1 to 128 ASCII letters, digits and . _ @ + -, "
        "starts with a letter or digit and has no two dots in a row"
    )


def test_message_shows_no_control_characters_no_markup_and_only_the_beginning() -> None:
    with pytest.raises(UsageError) as refused:
        check_agent_id("\x1b[31m<b>[red]" + "x" * 100)
    assert refused.value.message == (r"'\x1b\x5b31m\x3cb>\x5bred]" + "x" * 27 + "'… is not an agent id")


@given(st.text(max_size=140))
def test_accepted_id_is_one_path_component(text: str) -> None:
    try:
        accepted = check_agent_id(text)
    except UsageError as exc:
        assert exc.message.isascii() or exc.message.removesuffix("… is not an agent id").isascii()
        return
    assert len(accepted) <= MAX_AGENT_ID_LENGTH
    assert accepted.isascii()
    assert not {"/", "\\", "\0"} & set(accepted)
    assert accepted not in (".", "..")
