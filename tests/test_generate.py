"Generation: the prompt is the row's own beginning, and what was trained is what is loaded, compared and merged."
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segtune.encoder import Encoder
from segtune.models import bundled
from segtune.segments import ConfigError, DataError, MissingError, RunError, Segment
from segtune.tokenizer import load_tokenizer

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
torch.set_num_threads(1)

TINY = bundled("tiny")
PAIRS = {"red": "A colour", "oak": "A tree", "the number that comes after nine": "A number", "May": "A month"}
OPTIONS = dict(lora_r=8, lora_target_linear=True, learning_rate=3e-3, micro_batch_size=4, max_steps=100, lr_scheduler="constant", save_steps=0, log=lambda o: None)


def segments(q, a, end): return [Segment(f"Question: what is {q}?\nAnswer:", False), Segment(f" {a}.{end}", True)]

def prepared(encoder, rows):
    import datasets
    found = [encoder.encode_row(r) for r in rows]
    return datasets.Dataset.from_dict(dict(input_ids=[o.ids.tolist() for o in found], labels=[o.labels.tolist() for o in found]))

@pytest.fixture(scope="session")
def encoder(): return Encoder(load_tokenizer(TINY))

@pytest.fixture(scope="session")
def rows(encoder): return [segments(q, a, encoder.tok.eos) for q, a in PAIRS.items()]

@pytest.fixture(scope="session")
def prompts(encoder, rows):
    from segtune.training.generate import row_prompt
    return [row_prompt(encoder, r) for r in rows]

@pytest.fixture(scope="session")
def adapter(encoder, rows, tmp_path_factory):
    from segtune.training.run import train
    out = tmp_path_factory.mktemp("adapter") / "out"
    train(TINY, prepared(encoder, rows), output_dir=out, **OPTIONS)
    return out

@pytest.fixture(scope="session")
def loaded(adapter):
    from segtune.training.load import load_adapter
    return load_adapter(adapter)

def answers(loaded, prompts, **how):
    from segtune.training.generate import generate
    return generate(*loaded, prompts, **{"max_new_tokens": 12, **how})


# ---- the prompt

@pytest.mark.parametrize("boundary", ["split", "axolotl"])
def test_a_rows_prompt_is_its_beginning(boundary):
    from segtune.training.generate import row_prompt
    tok = load_tokenizer(bundled("mistral-v0.1"))
    enc = Encoder(tok, boundary)
    for row in ([Segment("<s>Q: ", False), Segment("caf\u00e9 \U0001f600\n", False), Segment("A", True), Segment(" more", False)],
                [Segment("", True), Segment("  x", False), Segment("y</s>", True)]):
        ids = row_prompt(enc, row)
        assert ids and ids == enc.encode_row(row).ids.tolist()[:len(ids)]
        if boundary == "split": assert tok.to_bytes(ids).decode().endswith("".join(s.text for s in row[:2]).removeprefix("<s>"))

def test_a_token_over_the_edge_is_named():
    from segtune.training.generate import row_prompt
    enc = Encoder(load_tokenizer(bundled("gpt2")), "whole")
    with pytest.raises(DataError, match=r"rows.jsonl:3 does not begin with the tokens of its prompt: token 1 is ' goodbye' in the row and ' good' in the prompt alone. Set boundary: split"):
        row_prompt(enc, [Segment("Say good", False), Segment("bye", True)], "rows.jsonl:3")

def test_there_must_be_a_prompt(encoder):
    from segtune.training.generate import row_prompt, text_prompt
    with pytest.raises(DataError, match="begins with trained text"): row_prompt(encoder, [Segment("", False), Segment("a", True)])
    with pytest.raises(DataError, match="empty"): text_prompt(encoder.tok, "")

def test_a_typed_prompt_is_encoded_as_written():
    from segtune.training.generate import text_prompt
    tok = load_tokenizer(bundled("mistral-v0.1"))
    assert text_prompt(tok, "<s>Hello\nhi") == [1, 22557, 13, 5365] and tok.to_bytes(text_prompt(tok, "a  b\n")) == b" a  b\n"


# ---- answers

def test_what_was_trained_is_answered(loaded, prompts):
    found = answers(loaded, prompts)
    assert [(a.text, a.finish_reason) for a in found] == [(f" {a}.", "eos") for a in PAIRS.values()]
    assert all(a.raw == a.text + loaded[1].eos for a in found)

@pytest.mark.parametrize("how", [{}, dict(stop=["ol", "tr"]), dict(max_new_tokens=3)], ids=str)
def test_together_or_one_by_one(loaded, prompts, how):
    assert len({len(p) for p in prompts}) > 1
    one_by_one = [answers(loaded, [p], **how)[0] for p in prompts]
    for size in (2, 4): assert answers(loaded, prompts, batch_size=size, **how) == one_by_one

def test_a_stop_string_ends_an_answer(loaded, prompts):
    found = answers(loaded, prompts, stop=["ol", "tr"])
    assert [(a.text, a.finish_reason) for a in found] == [(" A c", "stop"), (" A ", "stop"), (" A number.", "eos"), (" A month.", "eos")]
    assert "ol" in found[0].raw and not found[0].raw.endswith(loaded[1].eos)

def test_length_is_said(loaded, prompts): assert {a.finish_reason for a in answers(loaded, prompts, max_new_tokens=2)} == {"length"}

@pytest.mark.parametrize("how", [{}, dict(stop=["ol", "tr"]), dict(stop=["number.<", "ee. And", " A m"]), dict(max_new_tokens=3), dict(temperature=3.0, top_p=.99),
                                 dict(batch_size=3)], ids=str)
def test_a_streamed_answer_is_the_same_answer(loaded, prompts, how):
    pieces, order = [[] for _ in prompts], []
    found = answers(loaded, prompts, stream=lambda i, piece: (pieces[i].append(piece), order.append(i)), **how)
    assert found == answers(loaded, prompts, **how) and [p[-1] for p in pieces] == [None] * 4
    assert ["".join(p[:-1]) for p in pieces] == [a.text for a in found] and all(p[:-1].count("") == 0 for p in pieces)
    if not how: assert len(set(order[:4])) == 4 and min(map(len, pieces)) > 3, "answers grow, and grow together"

@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab\u00e9\U0001f600", max_size=12), st.lists(st.text(alphabet="ab\u00e9", min_size=1, max_size=3), max_size=2), st.data())
def test_text_is_held_back_while_it_may_change(text, stop, data):
    "Whatever bytes the tokens have: what was shown is never taken back, and is the text before the stop string in the end"
    from segtune.training.generate import _Growing
    left, o, shown = text.encode(), _Growing(set(), stop), ""
    while left and not o.over:
        n = data.draw(st.integers(1, len(left)))
        shown += o.add(0, left[:n])
        left = left[n:]
        so_far = text.encode()[:len(text.encode()) - len(left)].decode(errors="ignore")
        at = min((i for s in stop if (i := so_far.find(s)) >= 0), default=len(so_far))
        assert so_far[:at].startswith(shown)
        if o.over: assert shown == so_far[:at] and at < len(so_far)
    if not o.over: assert not any(s in text for s in stop) and text.startswith(shown) and len(text) - len(shown) < max(map(len, stop), default=1)

def test_chance_is_seeded(loaded, prompts):
    hot = dict(temperature=3.0, top_p=.99)
    assert answers(loaded, prompts, seed=1, **hot) == answers(loaded, prompts, seed=1, **hot) != answers(loaded, prompts, seed=2, **hot)

def test_settings_of_the_base_model_do_not_leak_in(loaded, prompts):
    conf = loaded[0].get_base_model().generation_config
    conf.repetition_penalty = 5.0
    try: assert [a.finish_reason for a in answers(loaded, prompts)] == ["eos"] * 4
    finally: conf.repetition_penalty = None
    assert loaded[0].get_base_model().generation_config is conf

def test_compare_answers_as_base_and_as_tuned(loaded, prompts):
    from segtune.training.generate import compare
    from segtune.training.model import load_base
    both = compare(*loaded, prompts, max_new_tokens=12)
    assert [c.tuned for c in both] == answers(loaded, prompts)
    assert [c.base for c in both] == answers((load_base(TINY), loaded[1]), prompts)
    assert not any(c.base.ids == c.tuned.ids for c in both) and both[0].prompt.endswith("Answer:")


# ---- measuring, loading, merging

def test_evaluate_measures_both(loaded, encoder, rows):
    from segtune.training.evaluate import evaluate
    from segtune.training.model import load_base
    data, model, total, n = prepared(encoder, rows), load_base(TINY), 0.0, 0
    for r in data:
        logp = model(torch.tensor([r["input_ids"]])).logits[0].log_softmax(-1)
        for j in range(1, len(r["labels"])):
            if r["labels"][j] != -100: total, n = total - logp[j - 1, r["labels"][j]].item(), n + 1
    e = evaluate(loaded[0], data, batch_size=3)
    assert e.n_tokens == n and e.base_loss == pytest.approx(total / n, abs=1e-5) and e.loss < e.base_loss / 5
    assert evaluate(model, data).base_loss is None

@pytest.mark.parametrize("more", [dict(tokens=["<|note|>", "<|end|>"]), dict(peft_use_dora=True), dict(peft_use_rslora=True), dict(adapter=None, learning_rate=3e-4),
                                  dict(lora_modules_to_save=["embed_tokens"]), dict(special_tokens=dict(pad_token="<|fill|>")), dict(lora_target_linear=False, lora_target_modules=r".*\.layers\.[01]\..*_proj")],
                         ids=lambda o: next(iter(o)))
def test_what_is_loaded_is_what_was_trained(rows, tmp_path, more):
    from segtune.training.evaluate import evaluate
    from segtune.training.load import load_adapter
    from segtune.training.merge import merge
    from segtune.training.run import train
    names = {k: more[k] for k in ("tokens", "special_tokens") if k in more}
    enc = Encoder(load_tokenizer(TINY, names.get("special_tokens"), names.get("tokens", ())))
    mine = rows[:2] + [[Segment("<|note|>Say it:", False), Segment(" so<|end|>", True)]] if "tokens" in more else rows
    data = prepared(enc, mine)
    result = train(TINY, data, output_dir=tmp_path / "out", eval_set=data, **{**OPTIONS, "max_steps": 8, **more})
    model, tok = load_adapter(tmp_path / "out")
    assert evaluate(model, data).loss == pytest.approx(result.eval_after, abs=1e-4) and result.eval_after < result.eval_before - .1
    assert tok.backend.get_vocab_size() == enc.tok.backend.get_vocab_size()
    if "adapter" in more: return
    merged, _ = load_adapter(merge(tmp_path / "out", tmp_path / "merged"))
    ids = torch.tensor([data[0]["input_ids"]])
    assert torch.allclose(model(ids).logits, merged(ids).logits, atol=1e-3)

def test_a_merged_model_is_an_ordinary_one(adapter, loaded, prompts, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from segtune.training.merge import merge
    out = merge(adapter, tmp_path / "merged")
    model, tok = AutoModelForCausalLM.from_pretrained(out).eval(), AutoTokenizer.from_pretrained(out)
    text = loaded[1].to_bytes(prompts[0]).decode()
    assert tok(text, add_special_tokens=False)["input_ids"] == prompts[0]
    ids = torch.tensor([prompts[0]])
    assert torch.allclose(model(ids).logits, loaded[0](ids).logits, atol=1e-4)
    with pytest.raises(RunError, match="is not empty"): merge(adapter, out)
    with pytest.raises(RunError, match="holds no adapter to merge"): merge(out, tmp_path / "twice")

def test_weights_are_merged_in_the_base_models_format(adapter, tmp_path):
    from safetensors.torch import load_file

    from segtune.training.merge import merge
    assert {str(o.dtype) for o in load_file(merge(adapter, tmp_path / "a") / "model.safetensors").values()} == {"torch.float32"}
    assert {str(o.dtype) for o in load_file(merge(adapter, tmp_path / "b", dtype="bfloat16") / "model.safetensors").values()} == {"torch.bfloat16"}

def test_an_adapter_finds_its_base_model(adapter, tmp_path):
    from segtune.training.load import load_adapter
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == str(Path(TINY).resolve())
    moved = Path(shutil.copytree(adapter, tmp_path / "out"))
    conf = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps({**conf, "base_model_name_or_path": str(tmp_path / "gone")}))
    with pytest.raises(ConfigError, match="gone"): load_adapter(moved)
    load_adapter(moved, base_model=TINY)

def test_training_goes_on_from_an_adapter(adapter, encoder, rows, tmp_path):
    from segtune.training.run import train
    result = train(TINY, prepared(encoder, rows), output_dir=tmp_path, eval_set=prepared(encoder, rows), **{**OPTIONS, "max_steps": 2, "learning_rate": 1e-6}, lora_model_dir=adapter)
    assert result.eval_before < 1 and "q_proj" in result.trainable["modules"]

def test_what_is_missing_is_said(tmp_path, monkeypatch):
    from segtune.training import packages
    from segtune.training.evaluate import rouge
    from segtune.training.load import load_adapter
    from segtune.training.run import train
    with pytest.raises(RunError, match="Run segtune train first"): load_adapter(tmp_path)
    monkeypatch.setattr(packages, "find_spec", lambda o: None)
    with pytest.raises(MissingError, match=r"pip install 'segtune\[train\]'"): train(TINY, None, output_dir=tmp_path)
    with pytest.raises(MissingError, match="pip install rouge-score"): rouge(["a"], ["b"])


# ---- losses, token by token, and evaluating

@pytest.mark.parametrize("step", ["share", "pack", "pad", "plain"])
def test_every_token_gets_its_own_loss(loaded, encoder, rows, step, monkeypatch):
    from segtune.training import losses as page
    from segtune.training.model import load_base
    data, model = prepared(encoder, [*rows, [Segment("Question: what is red?\nAnswer:", False), Segment(" B", True), Segment(" or", False), Segment(" C", True)]]), load_base(TINY)
    real = page.choose_step
    monkeypatch.setattr(page, "choose_step", lambda m: real(m, step=step))
    for masked in (False, True):
        found = page.score_tokens(model, data, masked=masked, batch_size=3)
        for r, o in zip(data, found):
            logp = model(torch.tensor([r["input_ids"]])).logits[0].log_softmax(-1)
            wanted = [j for j in range(1, len(r["labels"])) if masked or r["labels"][j] != -100]
            assert [j for j, v in enumerate(o.losses) if v == v] == wanted
            for j in wanted:
                assert o.losses[j] == pytest.approx(-logp[j - 1, r["input_ids"][j]].item(), abs=1e-4)
                assert o.hits[j] == (logp[j - 1].argmax().item() == r["input_ids"][j])
    assert "forward" not in model.__dict__ and model.config._attn_implementation == "sdpa"

def test_losses_of_a_row_without_any(loaded):
    import numpy as np

    from segtune.training.losses import token_losses
    data = [dict(input_ids=[5], labels=[5]), dict(input_ids=[5, 6], labels=[-100, -100]), dict(input_ids=[5, 6], labels=[-100, 6])]
    assert [np.isnan(o).tolist() for o in token_losses(loaded[0], data)] == [[True], [True, True], [True, False]]

def test_evaluation_by_source_adds_up(loaded, encoder, rows, tmp_path):
    from segtune.training.evaluate import evaluate
    model, tok = loaded
    data, begins_trained = prepared(encoder, rows), prepared(encoder, [[Segment("x", True), Segment(" y", True)]])
    import datasets
    data = datasets.concatenate_datasets([data, begins_trained])
    e = evaluate(model, data, tok, sources=["a", "a", "b", "b", "b"], places=list("12345"), n_resamples=50)
    t = e.table().set_index(["source", "measure"])
    assert t.tuned["all", "exact match"] == 1 and t.base["all", "exact match"] == 0 and t.difference["a", "exact match"] == 1
    assert t.tuned["all", "ROUGE-L"] == pytest.approx(1) and t.tuned["all", "perplexity"] == pytest.approx(torch.tensor(e.loss).exp().item())
    n = [e.parts("tuned", "loss", at)[:, 1].sum() for at in ([0, 1], [2, 3, 4])]
    assert (t.tuned["a", "loss"] * n[0] + t.tuned["b", "loss"] * n[1]) / sum(n) == pytest.approx(e.loss)
    assert t.low["all", "loss"] <= t.difference["all", "loss"] <= t.high["all", "loss"] < 0
    assert e.results["tuned"][4].answer is None and e.to_dict()["answered"] == 4
    lines = [json.loads(o) for o in open(e.write_predictions(tmp_path / "p.jsonl", tok))]
    assert [o["place"] for o in lines] == list("12345") and lines[1]["tuned"]["text"] == " A tree." == lines[1]["expected"]
    assert "prompt" not in lines[4] and "text" not in lines[4]["tuned"] and lines[4]["tuned"]["tokens"] == 1
    assert [r.answer is not None for r in evaluate(model, data, tok, n_answers=2, max_new_tokens=2).results["base"]] == [True, False, True, False, False]
    json.dumps(e.to_dict())

def test_a_whole_model_has_no_base_to_compare_with(encoder, rows):
    from segtune.training.evaluate import evaluate
    from segtune.training.model import load_base
    e = evaluate(load_base(TINY), prepared(encoder, rows), encoder.tok, max_new_tokens=2)
    assert list(e.table().columns) == ["source", "measure", "model"] and e.base_loss is None and "difference" not in "".join(e.lines())

@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(0, 5))
def test_an_interval_holds_the_difference_of_the_same_rows(n, seed):
    import numpy as np

    from segtune.training.evaluate import paired_bootstrap
    rng = np.random.default_rng(seed)
    a = np.stack([rng.uniform(1, 9, n), rng.integers(1, 9, n)], 1)
    assert paired_bootstrap(a, a, 50) == (0, 0)
    low, high = paired_bootstrap(a, a + [1, 0] * a[:, 1:] * [[1, 0]], 50)
    assert low == pytest.approx(1) and high == pytest.approx(1)
    assert paired_bootstrap(a, a[::-1], 50, 3) == paired_bootstrap(a, a[::-1], 50, 3)

def test_rouge_reads_every_script():
    from segtune.training.evaluate import rouge, rouge_each
    assert rouge(["the cats sat"], ["the cat sat"])["rouge1"] == 1, "stems"
    assert rouge_each(["Привет, мир", "天空"], ["привет мир", "地面"])[0]["rougeL"] == 1
    assert rouge_each(["天空"], ["地面"])[0]["rouge1"] == 0

@pytest.mark.parametrize("kind", ["PromptTuningConfig", "PrefixTuningConfig", "PromptEncoderConfig"])
def test_soft_prompts_are_part_of_what_is_measured(encoder, rows, kind):
    "Vectors before the row change its losses; without them it is the base model"
    import numpy as np
    import peft

    from segtune.training.losses import token_losses
    from segtune.training.model import load_base
    data = [dict(input_ids=o["input_ids"], labels=o["labels"]) for o in prepared(encoder, rows)]
    more = dict(encoder_hidden_size=16) if kind == "PromptEncoderConfig" else {}
    torch.manual_seed(0)
    model = peft.get_peft_model(load_base(TINY), getattr(peft, kind)(task_type="CAUSAL_LM", num_virtual_tokens=4, **more)).eval()
    for p in model.parameters():
        if p.requires_grad: torch.nn.init.normal_(p, std=.5)
    def plainly(): return [model(input_ids=torch.tensor([r["input_ids"]]), labels=torch.tensor([r["labels"]])).loss.item() for r in data]
    tuned, wanted = [np.nanmean(o) for o in token_losses(model, data)], plainly()
    with model.disable_adapter(): base, wanted_base = [np.nanmean(o) for o in token_losses(model, data)], plainly()
    assert tuned == pytest.approx(wanted, rel=1e-4) and base == pytest.approx(wanted_base, rel=1e-4) and abs(tuned[0] - base[0]) > .01

def test_answers_get_the_room_that_the_model_has(loaded, encoder):
    "The longest prompts leave few positions, or none: they are answered as far as it goes, and no row stops the evaluation"
    from segtune.training.evaluate import evaluate
    limit = loaded[0].config.max_position_embeddings
    lengths = [6, limit - 3, limit - 1]
    import datasets
    ids = [[5 + i % 7 for i in range(n)] + [6] for n in lengths]
    data = datasets.Dataset.from_dict(dict(input_ids=ids, labels=[[-100] * (len(o) - 1) + o[-1:] for o in ids]))
    e = evaluate(loaded[0], data, loaded[1], max_new_tokens=8)
    assert [len(r.answer.ids) <= room for r, room in zip(e.results["tuned"], (8, 3, 1))] == [True] * 3

def test_predictions_that_cannot_be_written_are_said(loaded, encoder, rows, tmp_path):
    from segtune.training.evaluate import evaluate
    e = evaluate(loaded[0], prepared(encoder, rows[:1]))
    with pytest.raises(RunError, match="cannot be written"): e.write_predictions(tmp_path / "no" / "p.jsonl", loaded[1])
    assert not (tmp_path / "no").exists()

def test_a_full_disk_leaves_no_half_of_the_predictions(loaded, encoder, rows, tmp_path, monkeypatch):
    from segtune.training import evaluate as e
    found = e.evaluate(loaded[0], prepared(encoder, rows), None)
    def full(*args): raise OSError(28, "No space left on device")
    monkeypatch.setattr(e, "_predicted", full)
    with pytest.raises(RunError, match="No space left on device"): found.write_predictions(tmp_path / "p.jsonl", loaded[1])
    assert list(tmp_path.iterdir()) == []

def test_what_is_missing_for_rouge_is_said_before_the_work(loaded, encoder, rows, monkeypatch):
    from segtune.training import evaluate as page
    from segtune.training import packages
    monkeypatch.setattr(packages, "find_spec", lambda o: None)
    monkeypatch.setattr(page, "score_tokens", lambda *a, **k: pytest.fail("measured before it asked"))
    with pytest.raises(MissingError, match="pip install rouge-score"): page.evaluate(loaded[0], prepared(encoder, rows), loaded[1])

def test_a_terminal_sees_the_same_answers(loaded, prompts, capsys):
    from segtune.model_commands import _stream
    model, tok = loaded
    _stream(model, tok, [(f"row {i}", p) for i, p in enumerate(prompts)], dict(max_new_tokens=12, batch_size=3))
    texts = [f"--- row {i}\n{tok.to_bytes(p).decode()}\n--- tuned\n{a.text}\n\n" for i, (p, a) in enumerate(zip(prompts, answers(loaded, prompts)))]
    assert capsys.readouterr().out == "".join(texts)
