"The files that formats are made from: each is used, and each says what the formats need."
from importlib.resources import files
from string import Formatter

import pytest

from segtune.axolotl.instruct import instruct_table
from segtune.data.formats import formats
from segtune.formats.base import format_context
from segtune.formats.named_templates import _read_template, named_templates
from segtune.formats.templates import render

ASSETS = files("segtune") / "assets"
FILES = sorted(o.name.removesuffix(".jinja") for o in (ASSETS / "chat_templates").iterdir())
TALK = [dict(role="user", content="Hi"), dict(role="assistant", content="Hello!")]


def fields_of(entry):
    "The fields that an entry of the table reads"
    named = [*entry.get("fields", ()), entry.get("system_field")]
    named += [n for k in ("prompt", "answer") for _, n, _, _ in Formatter().parse(entry.get(k, ""))]
    return {n.rstrip("?") for n in named if n}


@pytest.mark.parametrize("name", FILES)
def test_every_template_file_has_its_name_and_writes_what_is_said(name):
    assert named_templates[name] == _read_template(name)
    context = format_context({"bos_token": "<s>", "eos_token": "</s>"}, date="2024-07-26")
    assert "Hello!" in render(named_templates[name], TALK, context)

def test_every_name_has_a_file_or_is_the_one_that_cannot():
    texts = {_read_template(o) for o in FILES}
    assert [n for n, text in named_templates.items() if text not in texts] == ["alpaca_legacy"]

@pytest.mark.parametrize("name", FILES)
def test_a_line_of_a_template_file_is_layout_at_its_edges_only(name):
    text = (ASSETS / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")
    assert text.endswith("\n") and "\t" not in text and not any(o != o.rstrip() or not o.strip() for o in text.splitlines())

def test_every_entry_of_the_instruct_table_is_a_format():
    entries = {n: e for part in ("styled", "templated", "choices") for n, e in instruct_table[part].items()}
    assert {n: formats[n].about for n in entries} == {n: e["about"] for n, e in entries.items()}
    assert {n for e in entries.values() for n in fields_of(e)} - {"evaluation"} <= set(instruct_table["fields"])
    used = {n for e in entries.values() for n in fields_of(e)} | {"scores", "critiques"}
    assert set(instruct_table["fields"]) - used == set()
