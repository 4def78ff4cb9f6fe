"""Which hosts and keys are the server's, and which exposure is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from offapi.errors import ConfigError
from offapi.serve.access import AccessRules
from offapi.serve.key import VARIABLE, check_exposure, read_key

KEY = "k" * 24


@pytest.mark.parametrize(
    ("header", "loopback", "wildcard"),
    [
        ("127.0.0.1", True, True),
        ("127.0.0.1:8080", True, True),
        ("localhost:1", True, True),
        ("LOCALHOST:65535", True, True),
        ("[::1]:8080", True, True),
        ("127.9.9.9", True, True),
        ("box.lan:8080", True, True),
        ("192.168.0.7:8080", False, True),
        ("[fd00::7]:8080", False, True),
        ("evil.example", False, False),
        ("localhost.evil.example", False, False),
        ("127.0.0.1.evil.example", False, False),
        ("evil.example:8080@localhost", False, False),
        ("localhost:80:80", False, False),
        ("localhost:x", False, False),
        ("2130706433", False, False),
        ("", False, False),
        ("[::1", False, False),
    ],
)
def test_host_names_this_server(header: str, loopback: bool, wildcard: bool) -> None:
    names = frozenset({"box.lan"})
    assert AccessRules("127.0.0.1", names).knows_host(header) == loopback
    assert AccessRules("0.0.0.0", names, KEY).knows_host(header) == wildcard


@pytest.mark.parametrize(
    ("authorization", "known"),
    [
        (f"Bearer {KEY}", True),
        (f"bearer  {KEY} ", True),
        (f"Basic {KEY}", False),
        (KEY, False),
        ("Bearer", False),
        ("", False),
        (f"Bearer {KEY}k", False),
        (f"Bearer {KEY[:-1]}", False),
        ("Bearer ké", False),
    ],
)
def test_key_is_compared_whole(authorization: str, known: bool) -> None:
    assert AccessRules(key=KEY).has_key(authorization) == known
    assert not AccessRules(key="").has_key("Bearer ")


def test_repr_shows_no_key() -> None:
    assert KEY not in repr(AccessRules(key=KEY))


def test_key_file_must_be_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(KEY + "\n")
    file.chmod(0o600)
    assert read_key(file, {}) == KEY
    for mode in (0o640, 0o604, 0o620):
        file.chmod(mode)
        with pytest.raises(ConfigError, match="others can read"):
            read_key(file, {})
    with pytest.raises(ConfigError, match="cannot be read"):
        read_key(tmp_path / "none", {})


def test_programs_that_the_server_starts_do_not_get_the_key(tmp_path: Path) -> None:
    environment = {VARIABLE: KEY, "HOME": "/"}
    assert read_key(None, environment) == KEY
    assert environment == {"HOME": "/"}
    assert read_key(None, environment) is None


@pytest.mark.parametrize("key", ["", "short", "ä" * 20, "two words in the key", "line\nbreak" * 3])
def test_weak_and_unsendable_keys_are_refused(key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read_key(None, {VARIABLE: key})
    assert key == "" or key not in str(refused.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "box.lan"])
def test_others_need_a_key(host: str) -> None:
    with pytest.raises(ConfigError, match="clients need a key"):
        check_exposure(host, None)
    check_exposure(host, KEY)
    for loopback in ("127.0.0.1", "::1", "localhost"):
        check_exposure(loopback, None)
