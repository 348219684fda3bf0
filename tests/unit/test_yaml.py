"""YAML text to nodes: what is kept, where it stands, and that hostile text is only ever a message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddray.errors import suggest
from ddray.plan import yaml
from ddray.plan.yaml import Node, dotted, merge, parse, plain, read, where, without


def parsed(text: str) -> tuple[Any, list[str]]:
    problems: list[str] = []
    node = parse(text, "f.yaml", problems)
    return (plain(node) if node is not None else None), problems


def root(text: str) -> Node:
    problems: list[str] = []
    node = parse(text, "f.yaml", problems)
    assert node is not None
    assert not problems
    return node


@pytest.mark.parametrize(
    "text, value",
    [
        ("a: 1", 1),
        ("a: -7", -7),
        ("a: 0x1F", 31),
        ("a: 0o17", 15),
        ("a: 1.5", 1.5),
        ("a: 1e-3", 1e-3),
        ("a: .5", 0.5),
        ("a: true", True),
        ("a: False", False),
        ("a: yes", "yes"),
        ("a: on", "on"),
        ("a:", None),
        ("a: ~", None),
        ("a: '1'", "1"),
        ('a: "true"', "true"),
        ("a: 2024-01-01", "2024-01-01"),
        ("a: 1:30", "1:30"),
        ("a: é", "é"),
        ("a: |\n  x\n  y\n", "x\ny\n"),
        ("a: [1, [2]]", [1, [2]]),
        ("a: {b: {}}", {"b": {}}),
        ("%YAML 1.1\n---\na: no", "no"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    got, problems = parsed(text)
    assert got == {"a": value}
    assert type(got["a"]) is type(value)
    assert not problems


def test_every_node_knows_its_line() -> None:
    node = root(
        "ddray: 1\ngrids:\n  t:\n    axes:\n      ipc:\n        - 1\n        - 10\n      seed: [0,\n        1]\n"
    )
    assert where(node, "grids.t") == "f.yaml:3"
    assert where(node, "grids.t.axes.ipc") == "f.yaml:5"
    assert where(node, "grids.t.axes.ipc.1") == "f.yaml:7"
    assert where(node, ("grids", "t", "axes", "seed", 1)) == "f.yaml:9"
    assert where(node, "grids.t.axes.missing.deep") == "f.yaml:4"


def test_merge_keeps_the_place_of_what_won() -> None:
    merged = merge(root("a: {x: 1, y: [1, 2]}\nb: 1"), root("\n\n\na: {y: [3]}"))
    assert plain(merged) == {"a": {"x": 1, "y": [3]}, "b": 1}
    assert where(merged, "a.x") == "f.yaml:1"
    assert where(merged, "a.y") == "f.yaml:4"


def test_without_takes_out_entries_and_items() -> None:
    node = root("a: [1, 2, {b: 3, c: 4}]\nd: 5")
    assert plain(without(node, {("a", 0), ("a", 2, "b"), ("d",)})) == {"a": [2, {"c": 4}]}
    assert plain(without(root("a: [1]\nb: []"), {("a", 0)})) == {"b": []}


def test_an_alias_repeats_a_value() -> None:
    assert parsed("a: &x [1, 2]\nb: *x") == ({"a": [1, 2], "b": [1, 2]}, [])


BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{after}: &{after} [{','.join(['*' + name] * 10)}]\n" for name, after in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text, message",
    [
        ("a: 1\nb: {c: 1,\n c: 2}", r"f.yaml:3: b: duplicate key 'c'; first at f.yaml:2"),
        ("1: a\n'1': b", r"f.yaml:2: duplicate key '1'"),
        ("a: .nan", r"f.yaml:1: a: not a finite number; got '.nan'"),
        ("a: [1, -.inf]", r"f.yaml:1: a: not a finite number"),
        ("a: 1e999", r"f.yaml:1: a: not a finite number"),
        ("a:\n  - 99999999999999999999", r"f.yaml:2: a: number too large"),
        ("a: " + "9" * 10_000, r"f.yaml:1: a: number too large"),
        ("a: !!python/object/apply:os.system [x]", r"f.yaml:1: tags are not allowed; got 'tag:yaml.org,2002:python"),
        ("a: !x 1", r"f.yaml:1: tags are not allowed; got '!x'"),
        ("a: !!str 1", r"f.yaml:1: tags are not allowed"),
        (BOMB, r"f.yaml:\d: too many values once aliases are followed"),
        ("a: &a [*a]", r"f.yaml:1: unknown alias \*a"),
        ("a: *b", r"f.yaml:1: unknown alias \*b"),
        ("[" * 5000, r"f.yaml:1: nested too deeply"),
        ("a:\n" + "".join(" " * n + "- \n" for n in range(1, 60)), r"nested too deeply"),
        ("\n".join(f"a{n}: &a{n} [*a{n - 1}]" if n else "a0: &a0 [1]" for n in range(60)), r"nested too deeply"),
        ("a: 1\n---\nb: 2", r"f.yaml:2: a second document"),
        ("a: \x07", r"f.yaml:1: not YAML; got the control character U\+0007"),
        ('a: "\\ud800"', r"f.yaml:1: a: not text; got the character U\+D800"),
        ('a: "x\\0y"', r"f.yaml:1: a: not text; got the character U\+0000"),
        ('a: "\\Uffffffff"', r"f.yaml:1: not YAML"),
        ("a:\n\t- b", r"f.yaml:2: not YAML: .*cannot start any token"),
        ("a: [1, 2\nb: 3", r"f.yaml:2: not YAML"),
        ("%YAML 3.0\n---\na: 1", r"not YAML: found incompatible YAML document"),
        ("? [1]\n: 2", r"f.yaml:1: not a key; got a list of 1"),
        ("true: 2", r"f.yaml:1: not a key; got true"),
        ("1.5: 2", r"f.yaml:1: not a key; got 1.5"),
        ("<<: {a: 1}", r"f.yaml:1: merge keys"),
    ],
)
def test_what_cannot_be_kept_is_said_with_its_line(text: str, message: str) -> None:
    _, problems = parsed(text)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError("\n".join(problems))


def test_a_problem_does_not_hide_the_next_one() -> None:
    got, problems = parsed("a: 1\na: 2\nb: .inf\nc: 3")
    assert got == {"a": 1, "c": 3}
    assert len(problems) == 2


@pytest.mark.parametrize(
    "data, message",
    [
        (b"a: 1\nb: \xff", r"x.yaml:2: not UTF-8 text; got byte 0xff"),
        ("a: 1".encode("utf-16"), r"x.yaml:1: not UTF-8 text"),
        (b"\x00\x01\x02", r"x.yaml:1: not YAML; got the control character U\+0000"),
        (b"", r"x.yaml:1: not a sweep; got null"),
        (b"- 1", r"x.yaml:1: not a sweep; got a list of 1"),
        (b"hello", r"x.yaml:1: not a sweep; got 'hello'"),
        (b"#" * (yaml.MAX_BYTES + 1), r"x.yaml: too large"),
    ],
)
def test_files_that_are_no_sweep(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x.yaml").write_bytes(data)
    problems: list[str] = []
    assert read(tmp_path / "x.yaml", problems) is None
    with pytest.raises(AssertionError, match=message):
        raise AssertionError("\n".join(problems))


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    for path, message in [
        (tmp_path / "no.yaml", "no such sweep file"),
        (tmp_path, "not a regular file"),
        (tmp_path / ("x" * 5000), "cannot be read|no such"),
        (Path("a\0b"), "cannot be read|no such"),
    ]:
        problems: list[str] = []
        assert read(path, problems) is None
        with pytest.raises(AssertionError, match=message):
            raise AssertionError("\n".join(problems))


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfa: 1")
    problems: list[str] = []
    node = read(tmp_path / "x.yaml", problems)
    assert node is not None
    assert plain(node) == {"a": 1}


def test_suggest_and_dotted() -> None:
    assert suggest("dss", ["dm", "dsa", "idc"]) == "Did you mean 'dsa'?"
    assert suggest("DM", ["dm", "dsa"]) == "Did you mean 'dm'?"
    assert suggest("zzz", ["dm"]) == ""
    assert dotted(("grids", "t", "exclude", 1, "ipc", 0)) == "grids.t.exclude[1].ipc"
    assert dotted(()) == ""


YAMLISH = st.text(st.sampled_from(list("ab: -[]{}&*!|>'\"#%@,?\n\t0.~<\\x\x85\ufeff\u2028")), max_size=60)


@settings(max_examples=300, deadline=None)
@given(st.one_of(YAMLISH, st.text(max_size=60)))
def test_any_text_is_a_node_or_messages(text: str) -> None:
    problems: list[str] = []
    node = parse(text, "f.yaml", problems)
    assert node is not None or problems
    assert all(message.startswith("f.yaml:") for message in problems)
    if node is not None:
        assert node.depth <= yaml.MAX_DEPTH


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_a_node_or_messages(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes.yaml"
    path.write_bytes(data)
    problems: list[str] = []
    assert read(path, problems) is not None or problems
