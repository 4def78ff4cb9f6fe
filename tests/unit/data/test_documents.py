"""Documents, chat examples, JSON Lines: what is read back, and one clear error per bad row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offapi.data import documents, traces
from offapi.data.cap import cap_groups
from offapi.data.documents import Document
from offapi.data.traces import Trace
from offapi.errors import ConfigError, DataError
from offapi.files import jsonl

ROW = b'{"id":"1","document":"a text","gold":{"a":1}}\n'
DEEP = b'{"a":' * 500 + b"1" + b"}" * 500
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ANSWERS = st.none() | st.dictionaries(NAMES, SCALARS | NAMES, max_size=3)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None
)
@given(
    st.lists(
        st.builds(Document, TEXTS, TEXTS, ANSWERS, ANSWERS),
        min_size=1,
        max_size=4,
        unique_by=lambda d: d.id,
    )
)
def test_documents_are_read_as_they_were_written(tmp_path: Path, rows: list[Document]) -> None:
    documents.write(tmp_path / "d.jsonl", rows)
    assert documents.read(tmp_path / "d.jsonl") == rows


def test_windows_files_blank_lines_and_other_keys_are_read(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"id":"1","document":"x","note":5}\r\n\r\n{"id":"2","document":"y\\u2028","gold":null}'
    )
    assert documents.read(path) == [Document("1", "x"), Document("2", "y\u2028")]


@pytest.mark.parametrize(
    ("bad", "field", "said"),
    [
        (b"{oops}\n", "", "not JSON"),
        (b'{"id":"2","document":"cut', "", "cut short"),
        (b"[1]\n", "", "not an object"),
        (b'{"id":"2","document":"\xff"}\n', "", "not UTF-8"),
        (b'{"id":"2","document":NaN}\n', "document", "a string, got NaN"),
        (b'{"id":"2","document":"x","gold":{"a":[1,NaN]}}\n', "gold.a.1", "NaN and Infinity"),
        (b'{"id":"2","document":"x","recorded_label":%b}\n' % DEEP, "recorded_label", "250 levels"),
        (b'{"id":"2"}\n', "document", "missing"),
        (b'{"id":"2","docment":"x"}\n', "document", "'docment'"),
        (b'{"document":"x"}\n', "id", "missing"),
        (b'{"id":2.5,"document":"x"}\n', "id", "a string, got 2.5"),
        (b'{"id":true,"document":"x"}\n', "id", "a string, got true"),
        (b'{"id":1,"document":"x"}\n', "id", "line 1 (a whole number as an id counts as its"),
        (b'{"id":"","document":"x"}\n', "id", "empty"),
        (b'{"id":"1","document":"x"}\n', "id", "line 1"),
        (b'{"id":"2","document":["x"]}\n', "document", "a string"),
        (b'{"id":"2","document":" \\n\\t"}\n', "document", "empty"),
        (b'{"id":"2","document":"x","gold":["y"]}\n', "gold", "an object or a text"),
        (b'{"id":"2","document":"x","gold":" "}\n', "gold", "an object or a text"),
        (b'{"id":"2","document":"x","recorded_label":[]}\n', "recorded_label", "an object"),
        (b'{"id":"2","document":"x","Gold":{"a":1}}\n', "Gold", "Did you mean 'gold'?"),
        (b'{"id":"2","document":"x","golds":{}}\n', "golds", "Did you mean 'gold'?"),
        (
            b'{"id":"2","document":"x","gold":{},"recorded_labels":{}}\n',
            "recorded_labels",
            "mean 'recorded_label'?",
        ),
        (
            b'{"id":"2","document":"x","recordedLabel":{}}\n',
            "recordedLabel",
            "mean 'recorded_label'?",
        ),
    ],
)
def test_a_bad_row_names_file_line_field_and_next_step(
    tmp_path: Path, bad: bytes, field: str, said: str
) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(ROW + b"\n" + bad)
    with pytest.raises(DataError) as caught:
        documents.read(path)
    assert caught.value.where == f"{path}, line 3" + (f", field {field!r}" if field else "")
    assert said in str(caught.value)
    assert caught.value.next_step


def test_keys_that_are_not_typos_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    others = b'"recorded_at":{"a":1},"ids":{},"document_id":{},"meta":{"Gold":{}},"label":{},"golds":[1],"Gold":"text"'
    path.write_bytes(
        b'{"id":"1","document":"x",%b}\n{"id":"2","document":"x","gold":{},"Gold":{}}\n' % others
    )
    assert documents.read(path) == [Document("1", "x"), Document("2", "x", {})]


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_a_file_without_rows_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.jsonl").write_bytes(content)
    with pytest.raises(DataError, match="no rows"):
        documents.read(tmp_path / "d.jsonl")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        documents.read(tmp_path / "none.jsonl")


def test_a_folder_is_read_by_name_without_hidden_and_other_files(tmp_path: Path) -> None:
    for name, text in {
        "b.txt": "B",
        "a.md": "A",
        "sub/a.TXT": "S",
        "x.csv": "no",
        ".git/a.txt": "no",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert documents.read(tmp_path) == [
        Document("a.md", "A"),
        Document("b.txt", "B"),
        Document("sub/a.TXT", "S"),
    ]


@pytest.mark.parametrize(
    ("content", "said"), [(b" \n", "empty"), (b"\xff\xff", "not UTF-8"), (b"%PDF-1.4 x", "a PDF")]
)
def test_a_bad_file_in_a_folder_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        documents.read(tmp_path)
    assert caught.value.where.startswith(str(tmp_path / "bad.txt"))


def test_a_folder_without_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no documents"):
        documents.read(tmp_path)


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CHAT = Trace(
    "1",
    (
        {"role": "system", "content": "s"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "42"},
        {"role": "assistant", "content": "42"},
    ),
    ({"type": "function", "function": {"name": "f"}},),
)


def test_chats_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [CHAT, Trace("2", CHAT.messages[-1:])]
    traces.write(tmp_path / "e.jsonl", rows)
    assert traces.read(tmp_path / "e.jsonl") == rows


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ('{"id":"1"}', "messages"),
        ('{"id":"1","messages":{}}', "messages"),
        ('{"id":"1","messages":[]}', "messages"),
        ('{"id":"1","messages":[{"role":"user","content":"q"}]}', "messages"),
        ('{"id":"1","messages":["q"]}', "messages[0]"),
        ('{"id":"1","messages":[{"role":"asistant","content":"q"}]}', "messages[0].role"),
        ('{"id":"1","messages":[{"content":"q"}]}', "messages[0].role"),
        ('{"id":"1","messages":[{"role":["user"],"content":"q"}]}', "messages[0].role"),
        ('{"id":"1","messages":[{"role":"assistant"}]}', "messages[0].content"),
        (
            '{"id":"1","messages":[{"role":"assistant","content":[{"type":"text"}]}]}',
            "messages[0].content",
        ),
        (
            '{"id":"1","messages":[{"role":"assistant","content":null,"tool_calls":[]}]}',
            "messages[0].content",
        ),
        (
            '{"id":"1","messages":[{"role":"assistant","content":"a","tool_calls":[1]}]}',
            "messages[0].tool_calls",
        ),
        (
            '{"id":"1","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{}}}]}]}',
            "messages[0].tool_calls",
        ),
        (
            '{"id":"1","messages":[{"role":"user","content":"a","tool_calls":[1]}]}',
            "messages[0].tool_calls",
        ),
        ('{"id":"1","messages":[{"role":"assistant","content":"a"}],"tools":[1]}', "tools[0]"),
    ],
)
def test_a_bad_chat_names_its_field(tmp_path: Path, row: str, field: str) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text(row)
    with pytest.raises(DataError) as caught:
        traces.read(path)
    assert caught.value.where == f"{path}, line 1, field {field!r}"
    assert caught.value.next_step


def test_writing_leaves_the_old_file_when_a_row_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    jsonl.write(path, [{"id": "1"}])
    with pytest.raises(TypeError):
        jsonl.write(path, [{"id": "2"}, {"id": object()}])
    assert path.read_bytes() == b'{"id":"1"}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["d.jsonl"]


def test_rows_per_vendor_are_limited_and_stay_in_order() -> None:
    rows = [
        Document(str(i), "t", {"vendor": "ACME Ltd" if i % 2 else "Acme, Ltd."}) for i in range(20)
    ]
    rows += [Document("b", "t", None, {"vendor": "Bell"}), Document("c", "t"), Document("d", "t")]
    kept = cap_groups(rows, "vendor", 3)
    assert Counter(row.id.isdigit() for row in kept) == {True: 3, False: 3}
    assert [rows.index(row) for row in kept] == sorted(rows.index(row) for row in kept)
    assert kept == cap_groups(rows, "vendor", 3)
    assert kept != cap_groups(rows, "vendor", 3, seed=1)
    with pytest.raises(ConfigError):
        cap_groups(rows, "vendor", 0)
