"""Random rows and options, to the token as axolotl 0.18.0 (2026-07-17) makes them.

`golden/random.json.gz` was made by running axolotl's own strategies on rows that nobody chose: texts with spaces,
newlines and control tokens at their edges, contents in parts, flags, ranges, thoughts, tools, short `sequence_len`.
Of each row it holds the ids, and where the label changes; rows that axolotl or segtune refuses are left out.
"""
import gzip
import json
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from segtune.data.formats import find_format
from segtune.encoder import format_encoder
from segtune.models import bundled
from segtune.segments import ConfigError
from segtune.tokenizer import load_tokenizer

CASES = json.loads(gzip.decompress((Path(__file__).parent / "golden/random.json.gz").read_bytes()))

@cache
def tokenizer(name): return load_tokenizer(bundled(name))

def row_format(tok, config, dataset):
    config = dict(config)
    asked = {k: config.pop(k) for k in ("sequence_len", "train_on_inputs") if k in config}
    return find_format(tokenizer=tok, defaults=config, **asked, **dataset)

def made(tok, fmt, row):
    "`(ids, label changes)` of each row that `row` becomes"
    batch = format_encoder(fmt, tok).encode([fmt(row, "data.jsonl", 1)])
    out = []
    for ids, labels in ((r.ids, r.labels) for r in (batch.row(i) for i in range(len(batch.rows)))):
        assert ((labels == -100) | (labels == ids)).all()
        if len(ids): out.append([ids.tolist(), np.flatnonzero(np.diff(labels != -100, prepend=False)).tolist()])
    return out

@pytest.mark.parametrize("i", range(0, len(CASES), 10))
def test_random_rows(i):
    for case in CASES[i:i + 10]:
        tok = tokenizer(case["tokenizer"])
        fmt = row_format(tok, case["config"], case["dataset"])
        for row, want in case["rows"]: assert made(tok, fmt, row) == want, (case["dataset"], row)

def test_there_are_as_many_as_there_should_be():
    types = Counter("user_defined" if isinstance(c["dataset"]["type"], dict) else c["dataset"]["type"].split(":")[0] for c in CASES)
    assert (len(CASES), sum(len(c["rows"]) for c in CASES)) == (348, 977)
    assert types["chat_template"] > 150 and len(types) > 25

def turns(*said): return {"messages": [dict(role=r, content=c) for r, c in zip(("user", "assistant") * 9, said)]}

# ---- one row of each class that the random ones found

def test_the_lone_space_after_a_quoted_control_token_is_the_answers():
    "Its characters are those of the newline after it, which is masked; axolotl trains it"
    tok = tokenizer("mistral-v0.1")
    fmt = find_format("chat_template", tok, chat_template_jinja="{% for m in messages %}{{ m.role + ':' + m.content + '\n' }}{% endfor %}")
    row = format_encoder(fmt, tok).encode([fmt(turns("Hi", "Bye</s>"))]).row(0)
    assert row.ids.tolist() == [2188, 28747, 23809, 13, 489, 11143, 28747, 1930, 28706, 2, 28705, 13]
    assert row.labels.tolist() == [-100] * 7 + [1930, 28706, 2, 28705, -100]

def test_parts_are_one_text_for_the_template_and_decide_over_the_role():
    row = {"messages": [dict(role="user", content=[dict(type="text", text="a"), dict(type="text", value=" b", train=False)]),
                        dict(role="assistant", content=[dict(type="text", content="c"), dict(type="text", text=" d", weight=0)])]}
    tok = tokenizer("mistral-v0.1-chatml")
    fmt = find_format("chat_template", tok, chat_template="chatml")
    out = format_encoder(fmt, tok).encode([fmt(row)]).row(0)
    assert out.ids.tolist() == [32001, 2188, 13, 28708, 287, 32000, 28705, 13, 32001, 13892, 13, 28717, 281, 32000, 28705, 13]
    assert np.flatnonzero(out.labels != -100).tolist() == [3, 5, 11, 13]

def test_a_null_inside_the_arguments_of_a_call_is_left_out():
    call = dict(type="function", function=dict(name="f", arguments=dict(a=1, b=None)))
    row = {"messages": [dict(role="user", content="Hi"), dict(role="assistant", tool_calls=[call])]}
    fmt = find_format("chat_template", tokenizer("gpt2"), chat_template="qwen_25")
    assert '"arguments": {"a": 1}}' in "".join(s.text for s in fmt(row))

def test_mistrals_template_strips_an_answer_and_writes_tools():
    fmt = find_format("chat_template", tokenizer("gpt2"), chat_template="mistral_v2v3")
    assert "".join(s.text for s in fmt(turns(" Hi ", " Bye ")))[len("<|endoftext|>"):] == "[INST]  Hi [/INST] Bye<|endoftext|>"
    call = dict(id="123456789", type="function", function=dict(name="f", arguments=dict(a=1)))
    row = {"messages": [dict(role="user", content="Hi"), dict(role="assistant", tool_calls=[call]),
                        dict(role="tool", content="3", tool_call_id="123456789"), dict(role="assistant", content="Three")],
           "tools": [dict(type="function", function=dict(name="f", description="d"))]}
    fmt = find_format("chat_template", tokenizer("gpt2"), chat_template="mistral_v3_tekken")
    assert "".join(s.text for s in fmt(row))[len("<|endoftext|>"):] == (
        '[AVAILABLE_TOOLS][{"type": "function", "function": {"name": "f", "description": "d"}}][/AVAILABLE_TOOLS][INST]Hi[/INST]'
        '[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}, "id": "123456789"}]<|endoftext|>'
        '[TOOL_RESULTS]{"content": 3, "call_id": "123456789"}[/TOOL_RESULTS]Three<|endoftext|>')

def test_a_system_text_that_moves_to_the_last_question_is_no_error():
    "The first turns, rendered alone, are longer than the conversation"
    fmt = find_format("chat_template", tokenizer("mistral-v0.1"), chat_template="mistral_v2v3", train_on_inputs=True)
    row = turns("Hi", "Bye")
    row["messages"].insert(0, dict(role="system", content="word " * 40))
    assert [s.label for s in fmt(row)]

def test_an_answer_loses_a_bos_token_that_no_tokenizer_added():
    tok = tokenizer("gpt2")
    fmt = find_format("alpaca_instruct.load_no_prompt", tok)
    for said, left in (("<|endoftext|>Paris", [40313, 50256]), ("<|endoftext|>", [])):
        row = format_encoder(fmt, tok).encode([fmt(dict(instruction="Q", output=said))]).row(0)
        assert row.labels[row.labels != -100].tolist() == left

def test_only_alpaca_chat_reads_conversation():
    fmt = find_format("alpaca_chat.load_qa", tokenizer("gpt2"), conversation="chatml")
    assert "".join(s.text for s in fmt(dict(question="Q", answer="A"))).endswith("USER: Q\nASSISTANT:A<|endoftext|>")
    assert "conversation changes nothing" in fmt.notes[0]
    assert "<|im_start|>user\nQ<|im_end|>" in "".join(s.text for s in find_format("alpaca_chat", tokenizer("gpt2"), conversation="chatml")(dict(instruction="Q", output="A")))

def test_orcamini():
    tok = tokenizer("mistral-v0.1")
    fmt = find_format("orcamini", tok)
    row = fmt(dict(system_prompt="", question="Hi", response="Bye"))
    assert "".join(s.text for s in row) == "<s>### System:\n\n\n### User:\nHi\n\n### Response:\nBye</s>"
    assert [s.text for s in row if s.label] == ["Bye", "</s>"]

def test_a_null_system_text_is_an_empty_one():
    fmt = find_format(dict(system_prompt="Be brief.", system_format="{system}|"), tokenizer("gpt2"))
    def text(**row): return "".join(s.text for s in fmt(dict(instruction="Q", output="A", **row)))
    assert [text(), text(system=None), text(system="")] == ["Be brief.|Q A<|endoftext|>", "Q A<|endoftext|>", "Q A<|endoftext|>"]

def test_tied_segments_keep_their_first_token_until_their_text_changes():
    fmt = find_format("chat_template", tokenizer("mistral-v0.1-chatml"), chat_template="chatml", special_in_data="literal")
    row = fmt(turns("Hi</s>", "Bye</s>"))
    assert "".join(s.text for s in row).count("</s>") == 2 and not any(s.special for s in row if s.text == "</s>")
    with pytest.raises(ConfigError, match="train_on_eot"): find_format("chat_template", tokenizer("gpt2"), chat_template="chatml", train_on_eot="trun")

def test_sharegpt_reads_another_field_and_ultrachat():
    tok, said = tokenizer("gpt2"), [("user", "Hi"), ("assistant", "Bye")]
    want = [(s.text, s.label) for s in find_format("sharegpt", tok)({"conversations": [{"from": r, "value": t} for r, t in said]})]
    moved = find_format("sharegpt", tok, field_messages="turns")({"turns": [{"from": r, "value": t} for r, t in said]})
    ultra = find_format("sharegpt.load_ultrachat", tok)({"messages": [dict(role=r, content=t) for r, t in said]})
    assert [(s.text, s.label) for s in moved] == [(s.text, s.label) for s in ultra] == want
