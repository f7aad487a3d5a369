"""Rows at the edge of what a tokenizer can say, to the token as axolotl 0.18.0 (2026-07-17) makes them.

Each `ids` and each list of trained places is what axolotl's own strategy gave for the row under that tokenizer.
"""
import numpy as np
import pytest
from conftest import make_tokenizer

from segtune.data.formats import find_format
from segtune.encoder import format_encoder
from segtune.segments import ConfigError, DataError


def encoded(tok, row, **options):
    "`(ids, places of trained tokens)`"
    tok = make_tokenizer(tok)
    fmt = find_format(tokenizer=tok, **options)
    out = format_encoder(fmt, tok).encode([fmt(row, "d.jsonl", 1)]).row(0)
    trained = out.labels != -100
    assert (out.labels[trained] == out.ids[trained]).all()
    return out.ids.tolist(), np.flatnonzero(trained).tolist()

def answer(tok, said, **options):
    "The ids of an answer after `### Instruction:\\nHi\\n\\n### Response:\\n`, all of them trained"
    row, before = dict(instruction="Hi", input="", output=said), dict(instruction="Hi", input="", output="")
    prompt, none = encoded(tok, before, type="alpaca_instruct.load_no_prompt", **options)
    ids, trained = encoded(tok, row, type="alpaca_instruct.load_no_prompt", **options)
    assert none == [] and ids[:len(prompt)] == prompt and trained == list(range(len(prompt), len(ids)))
    return ids[len(prompt):]

# ---- an answer without a token, and one whose last token is the EOS token

@pytest.mark.parametrize("said, ids", [("\n", []), ("\u200b", []), ("a </s> ", [15, 3]), ("a", [15, 3]), (" <s>", [3]), (" <s> a", [15, 3])])
def test_an_answer_in_wordpiece(said, ids): assert answer("wordpiece", said) == ids

@pytest.mark.parametrize("row, ids, trained", [
    (dict(prompt="a", generation="\n"), [15], []), (dict(prompt="a", generation="<s>a"), [15, 15, 3, 3, 3], [1, 2, 3, 4]),
    (dict(prompt="a", generation="<s>"), [15, 3, 3, 3], [1, 2, 3])])
def test_metharme_in_wordpiece(row, ids, trained): assert encoded("wordpiece", row, type="metharme") == (ids, trained)

def test_completion_in_wordpiece():
    assert encoded("wordpiece", dict(text="a </s> "), type="completion") == ([15, 3], [0, 1])
    assert encoded("wordpiece", dict(text="\n"), type="completion") == ([], [])

# ---- a BOS token in the data

@pytest.mark.parametrize("tok, said, ids", [
    ("metaspace-first", "<s>Hi", [274, 286, 2]), ("metaspace-first", "<s> Hi", [308, 274, 286, 2]), ("metaspace-first", "<s>", [2]),
    ("unigram-first", "<s>Hi", [55, 21, 2]), ("metaspace-always", "<s>Hi", [308, 274, 286, 2]), ("byte-level-prefix", "<s>Hi", [224, 43, 76, 2])])
def test_the_rest_of_an_answer_begins_as_it_does_after_the_bos_token(tok, said, ids): assert answer(tok, said) == ids

@pytest.mark.parametrize("said, ids", [("<s>Paris is", [84, 278, 295]), ("<s>Pa", [84, 278, 2])])
def test_a_bos_token_that_is_taken_off_counts(said, ids): assert answer("metaspace-first", said, sequence_len=4) == ids

def test_what_is_read_literally_is_no_control_token():
    "segtune's own option, so axolotl's answer is only that no text is lost and every answer has its EOS token"
    literal = dict(special_in_data="literal")
    assert answer("gpt2", "<|endoftext|>Hi", **literal) == [27, 91, 437, 1659, 5239, 91, 29, 17250, 50256]
    assert answer("gpt2", "Hi<|endoftext|>", **literal) == [17250, 27, 91, 437, 1659, 5239, 91, 29, 50256]
    with pytest.raises(DataError, match="control token"): answer("gpt2", "<|endoftext|>Hi", special_in_data="error")

# ---- a token without characters, alone in its label

def turns(*said): return {"messages": [dict(role=r, content=c) for r, c in said]}

AFTER = "{% for m in messages %}{{ m.role }}:</s>{{ m.content }}\n{% endfor %}"
BARE = "{% for m in messages %}{{ m.content }}\n{% endfor %}"

@pytest.mark.parametrize("template, roles, row, ids, trained", [
    (AFTER, ["assistant"], turns(("user", "a"), ("assistant", "")), [2188, 28747, 2, 264, 13, 489, 11143, 28747, 2, 28705, 13], [9]),
    (AFTER, ["assistant"], turns(("user", "a"), ("assistant", ""), ("user", ""), ("assistant", "b")),
     [2188, 28747, 2, 264, 13, 489, 11143, 28747, 2, 28705, 13, 1838, 28747, 2, 28705, 13, 489, 11143, 28747, 2, 287, 13], [9, 20]),
    (BARE, ["assistant"], turns(("assistant", ""), ("user", "a")), [28705, 13, 28708, 13], [0]),
    (BARE, ["user"], turns(("user", ""), ("assistant", ""), ("user", "b")), [28705, 13, 13, 28726, 13], [0, 3])])
def test_an_invented_space_is_trained_alone_where_the_answer_is_empty(template, roles, row, ids, trained):
    made = encoded("mistral", row, type="chat_template", chat_template_jinja=template, train_on_eos="none", roles_to_train=roles)
    assert made == (ids, trained)

# ---- thoughts

def thoughts(message, **options):
    "What stands between the marks of Qwen3's template, of the last answer"
    row = {"messages": [dict(role="user", content="Hi"), dict(role="assistant", **message)]}
    fmt = find_format("chat_template", make_tokenizer("gpt2"), chat_template="qwen3", **options)
    text = "".join(s.text for s in fmt(row))
    return text.partition("<think>\n")[2].partition("\n</think>")[0]

def test_thoughts_apart_win_where_the_mappings_do_not_name_them():
    both, split = dict(content="<think>a</think>b", reasoning_content="c"), dict(split_thinking=True)
    assert thoughts(both, **split) == "a"
    assert thoughts(both, message_property_mappings=dict(role="role", content="content"), **split) == "c"
    assert thoughts(both, message_property_mappings=dict(role="role", content="content", reasoning_content="reasoning_content"), **split) == "a"
    assert thoughts(dict(both, reasoning_content=None), message_property_mappings=dict(role="role", content="content"), **split) == "a"

def test_thoughts_in_parts_are_one_text():
    assert thoughts(dict(content="b", reasoning_content=[dict(type="text", text="c"), dict(type="text", text=" d")])) == "c d"
    with pytest.raises(DataError, match=r"messages\[1\].reasoning_content: a part of the thoughts"):
        thoughts(dict(content="b", reasoning_content=[dict(type="text", text="c", train=False)]))

def test_tools_may_be_json_in_a_string():
    tool = '[{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]'
    fmt = find_format("chat_template", make_tokenizer("gpt2"), chat_template="qwen_25")
    row = {**turns(("user", "Hi"), ("assistant", "Yo")), "tools": tool}
    assert '"name": "f"' in "".join(s.text for s in fmt(row))

# ---- an empty conversation

@pytest.mark.parametrize("name, field, options", [("chat_template", "messages", dict(chat_template="chatml")), ("pygmalion", "conversations", {}),
                                                  ("chat_template", "said", dict(chat_template="chatml", field_messages="said"))])
def test_an_empty_conversation_is_no_row_and_is_said(name, field, options):
    fmt = find_format(name, make_tokenizer("gpt2"), **options)
    assert fmt({field: []}, "d.jsonl", 3) == []
    assert fmt.notes == ["A conversation without a turn is dropped, as in axolotl. (1 row, first d.jsonl:3)"]
    with pytest.raises(DataError, match="an empty list"): find_format(name, make_tokenizer("gpt2"), boundary="split", **options)({field: []})

# ---- types that have no format here

@pytest.mark.parametrize("name, told", [("llama2_chat", "type: sharegpt with conversation: llama-2"), ("sharegpt.load_glaive", "use type: chat"), ("messages.chat", "type: chat_template"),
                                        ("sharegpt_simple.load_role", "type: sharegpt.load_role"), ("chatml.intel", "preference data"), ("stepwise_supervised", "preference data")])
def test_a_type_that_is_not_written_here_says_what_to_write(name, told):
    with pytest.raises(ConfigError, match=r"axolotl.s format .* is not written here") as e: find_format(name, make_tokenizer("gpt2"))
    assert told in str(e.value)

# ---- keys that no mapping names

LOOP = "{% for message in messages %}<{{ message['role'] }}>{{ message['reasoning_content'] }}:{{ message['content'] }}{{ eos_token }}{% endfor %}"
MAPPED = dict(role="from", content="value")
Q, A = {"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}
THOUGHTS = {"from": "gpt", "value": "<think>a</think>b", "content": "RAW", "thought": "T", "reasoning_content": "R"}

@pytest.mark.parametrize("template, messages, options, text, trained", [
    (LOOP, [{**Q, "role": "assistant", "content": "RAWQ"}, {**A, "role": "user", "content": "RAWA"}], {}, "<assistant>:RAWQ$<user>:RAWA$", "RAWQ$"),
    (LOOP.replace("message[", "m[").replace("message ", "m "), [{**Q, "role": "assistant", "content": "RAWQ"}, {**A, "role": "user"}], {}, "<user>:Q$<assistant>:A$", "A$"),
    (LOOP, [{**Q, "role": "human", "content": "RQ"}, {**A, "role": "gpt"}], {}, "<human>:RQ$<gpt>:A$", ""),
    (LOOP, [{"role": "user", "value": "Q"}, {"role": "assistant", "value": "A"}], {}, "<user>:Q$<assistant>:A$", "A$"),
    (LOOP, [{"from": "human", "content": "Q"}, {"from": "gpt", "content": "A"}], {}, "<user>:Q$<assistant>:A$", "A$"),
    (LOOP, [Q, THOUGHTS], dict(split_thinking=True), "<user>:Q$<assistant>R:RAW$", "RAW$"),
    (LOOP, [Q, THOUGHTS], dict(message_property_mappings={**MAPPED, "reasoning_content": "thought"}), "<user>:Q$<assistant>R:RAW$", "RAW$"),
    (LOOP, [{**Q, "role": None, "content": None}, A], {}, "<user>:Q$<assistant>:A$", "A$"),
], ids=["both", "unseen", "untranslated", "role", "content", "split", "mapped", "null"])
def test_what_no_mapping_names_is_put_on_last(template, messages, options, text, trained):
    "The text and its trained part as axolotl's strategy makes them under gpt2; `$` is the EOS token"
    tok = make_tokenizer("gpt2")
    options = dict(chat_template="jinja", chat_template_jinja=template, message_property_mappings=MAPPED) | options
    fmt = find_format("chat_template", tok, **options)
    out = format_encoder(fmt, tok).encode([fmt({"messages": messages}, "d.jsonl", 1)]).row(0)
    def said(ids): return tok.decode(ids).replace(tok.eos, "$")
    assert said(out.ids.tolist()) == text and said(out.ids[out.labels != -100].tolist()).endswith(trained)
    assert bool(trained) == bool((out.labels != -100).any())
    wins = any({"role", "content", "reasoning_content"} & set(m) and m.get("role", m.get("content")) for m in messages if "from" in m and "value" in m)
    assert any("is taken, as in axolotl" in o for o in fmt.notes) == (wins and "message[" in template)

def test_a_template_that_says_m_sees_no_tool_calls():
    row = {"messages": [dict(role="user", content="Q"), dict(role="assistant", content="A", tool_calls=[dict(function=dict(name="f", arguments={}))])]}
    template = "{% for m in messages %}{{ m.role }}{{ m.content }}{{ m.tool_calls | length if m.tool_calls }}{{ eos_token }}{% endfor %}"
    def text(fmt): return "".join(s.text for s in fmt(row)).replace("<|endoftext|>", "$")
    theirs = find_format("chat_template", make_tokenizer("gpt2"), chat_template="jinja", chat_template_jinja=template)
    assert text(theirs) == "userQ$assistantA$" and "does not get to see tool_calls" in " ".join(theirs.notes)
    ours = find_format("chat", make_tokenizer("gpt2"), chat_template="jinja", chat_template_jinja=template)
    assert text(ours) == "userQ$assistantA1$"
