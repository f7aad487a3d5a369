"Training by each rung: the same losses, the same weights after any interruption, and the rows a config asks for in a step."
# ruff: noqa: F811  fixtures of test_train are arguments here
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from test_train import OPTIONS, ROWS, SCRIPT, Stop, base, rows, run, stopping_at, weights  # noqa: F401  `base` is a fixture

from segtune.segments import ConfigError, RunError
from segtune.training.batches import RowOrder, count_rows
from segtune.training.orders import BinOrder, PrefixOrder, measure_sharing
from segtune.training.step import rungs

STEM = np.random.default_rng(0).integers(3, 200, 40).tolist()
SHARED = [(STEM + i, [-100] * 40 + o) for i, o in ROWS]
MORE = dict(OPTIONS, lora_dropout=0.0, num_epochs=2)   # six steps
FOUR = dict(MORE, num_epochs=4, save_steps=2)


# ---- the orders

@given(st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1, max_size=40), st.integers(0, 5), st.booleans(), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_bins_hold_every_trained_row_once_in_every_epoch(sizes, seed, shuffled, multiple):
    counts = count_rows(rows([(list(range(n + 1)), [-100] * n + [1 if trained else -100]) for n, trained in sizes]))
    order = BinOrder(counts, 51, RowOrder(len(sizes), seed, shuffled=shuffled), multiple)
    kept = [i for i, (_, trained) in enumerate(sizes) if trained]
    for epoch in range(3):
        bins = order.bins(epoch)
        assert sorted(i for b in bins for i in b) == kept and len(bins) == order.n_rows
        assert all(counts.lengths[list(b)].sum() <= 51 for b in bins)
        order.set_epoch(epoch)
        assert [b for b in order if b] == list(bins) and len(list(order)) == len(order) and len(order) % multiple == 0
        if not shuffled: assert [i for b in bins for i in b] == kept

@given(st.lists(st.lists(st.integers(0, 1), max_size=9), min_size=1, max_size=24), st.integers(1, 5), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_rows_that_begin_alike_stand_together(ids, block, seed):
    order = PrefixOrder([np.array(o, np.int32) for o in ids], seed, 1, min_shared=2)
    blocked = PrefixOrder([np.array(o, np.int32) for o in ids], seed, block, min_shared=2)
    for epoch in range(3):
        assert sorted(blocked.order(epoch).tolist()) == list(range(len(ids)))
    from segtune.training.orders import shuffled_leaves
    leaves = [order.sorted[i] for i in shuffled_leaves(order.tree, np.random.default_rng(seed))]
    for depth in (2, 4, 6):
        families = [tuple(ids[i][:depth]) if len(ids[i]) >= depth else ("alone", i) for i in leaves]
        changes = sum(a != b for a, b in zip(families, families[1:])) + 1
        assert changes == len(set(families)), "a family is torn"

def test_what_sharing_saves_is_counted():
    told = measure_sharing(rows(SHARED), RowOrder(10, 0), 10)
    once = {tuple(i[:n]) for i, o in SHARED for n in range(1, max(j for j, t in enumerate(o) if t != -100) + 1)}
    assert told.tokens == sum(len(i) for i, _ in SHARED) and len(once) <= told.unique <= len(once) + 10 and str(told).endswith("x less to compute")


def test_the_config_hands_the_keys_on():
    from segtune.axolotl_keys import fate
    from segtune.config import Config
    from segtune.options import TrainOptions
    for key in ("step", "sample_packing", "group_by_prefix"):
        assert key in Config.model_fields and key in TrainOptions.model_fields, key
    assert fate("sample_packing", True) is None and fate("sample_packing_group_size", 9)[0] == "ignored"


# ---- each rung trains alike

@pytest.fixture(scope="module")
def plainly(base, tmp_path_factory):
    return run(base, rows(SHARED), tmp_path_factory.mktemp("plain"), **MORE, step="plain", eval_set=rows(SHARED[:4]), eval_steps=2)[0]

@pytest.mark.parametrize("rung", ["auto", "share", "pack", "pad"])
def test_every_rung_gives_the_losses_of_the_plain_step(base, plainly, tmp_path, rung):
    result, lines = run(base, rows(SHARED), tmp_path, **MORE, step=rung, eval_set=rows(SHARED[:4]), eval_steps=2)
    assert result.steps == plainly.steps == 6 and result.losses == pytest.approx(plainly.losses, rel=1e-5)
    assert result.eval_losses == pytest.approx(plainly.eval_losses, rel=1e-5)
    taken = "share" if rung == "auto" else rung
    assert result.rung == taken and json.loads((tmp_path / "run.json").read_text())["watched"]["rung"] == taken
    assert sum(o.startswith(f"computing by {taken}, proved equal") for o in lines) == 1
    assert any("x less to compute" in o for o in lines) == (taken == "share")

@pytest.mark.parametrize("adapter", [dict(adapter=None, learning_rate=1e-3), dict(lora_modules_to_save=["embed_tokens", "lm_head"]), dict(tokens=["<|note|>"])], ids=["all weights", "saved whole", "token rows"])
def test_whatever_is_trained_gets_the_same_losses(base, tmp_path, adapter):
    results = [run(base, rows(SHARED), tmp_path / o, **{**MORE, **adapter}, step=o)[0] for o in ("share", "plain")]
    assert results[0].losses == pytest.approx(results[1].losses, rel=2e-5)

def test_what_is_written_knows_nothing_of_the_rung(base, tmp_path):
    from segtune.training.model import load_base
    run(base, rows(SHARED), tmp_path, **{**MORE, "adapter": None}, max_steps=1)
    assert "segtune" not in (tmp_path / "config.json").read_text()
    assert load_base(tmp_path).config._attn_implementation == "sdpa"

def test_noise_on_the_embeddings_takes_the_plain_step(base, tmp_path):
    result, lines = run(base, rows(SHARED), tmp_path / "a", **MORE, neftune_noise_alpha=5, max_steps=1)
    assert result.rung == "plain" and any("computing by plain (not share: the noise" in o for o in lines)
    with pytest.raises(ConfigError, match="pack does not hold with neftune_noise_alpha"): run(base, rows(SHARED), tmp_path / "b", **MORE, neftune_noise_alpha=5, step="pack")

def test_an_unknown_step_is_named(base, tmp_path):
    with pytest.raises(ConfigError, match=r"step: expected .*share.*got 'fast'"): run(base, rows(SHARED), tmp_path, step="fast")


# ---- interruptions

def ends_alike(base, tmp_path, rung, kills, **more):
    more = dict(MORE, **more, lora_dropout=.1 if rung != "share" else 0.0, step=rung, save_steps=1, num_epochs=4)
    whole, _ = run(base, rows(SHARED), tmp_path / "whole", **more)
    for at in kills:
        with pytest.raises(Stop): run(base, rows(SHARED), tmp_path / "cut", log=stopping_at(at), resume=True, **more)
    result, _ = run(base, rows(SHARED), tmp_path / "cut", resume=True, **more)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole") and result.losses == whole.losses

@pytest.mark.parametrize("rung", rungs)
def test_an_interrupted_run_ends_in_the_same_bytes(base, tmp_path, rung): ends_alike(base, tmp_path, rung, (3, 8))

@pytest.mark.parametrize("more", [dict(sample_packing=True, sequence_len=64), dict(group_by_prefix=True)], ids=["bins", "families"])
def test_orders_of_ours_resume_too(base, tmp_path, more): ends_alike(base, tmp_path, "share", (2, 3), **more)

@pytest.mark.slow
@pytest.mark.parametrize("rung", rungs)
def test_twelve_interruptions_on_every_rung(base, tmp_path, rung): ends_alike(base, tmp_path, rung, range(1, 13))

def test_a_resumed_run_keeps_its_rung(base, tmp_path):
    "Begun when it was asked for by name, resumed under auto: other bytes would follow"
    with pytest.raises(Stop): run(base, rows(SHARED), tmp_path, log=stopping_at(4), **FOUR)
    state = json.loads((tmp_path / "run.json").read_text())
    state["watched"]["rung"] = "pad"
    (tmp_path / "run.json").write_text(json.dumps(state))
    result, lines = run(base, rows(SHARED), tmp_path, **FOUR, resume=True)
    assert result.rung == "pad" and any("computing by pad" in o for o in lines)

def test_another_step_is_another_run(base, tmp_path):
    with pytest.raises(Stop): run(base, rows(SHARED), tmp_path, log=stopping_at(4), **FOUR)
    with pytest.raises(RunError, match="step 'auto' -> 'pack'"): run(base, rows(SHARED), tmp_path, **FOUR, resume=True, step="pack")


# ---- what a step holds

def test_bins_fill_a_step(base, tmp_path):
    "ROWS have 52 tokens in bins of at most 2 x 12: the first loss is that of the rows in the first two bins"
    from segtune.training.model import load_base
    more = dict(MORE, sample_packing=True, sequence_len=12)
    result, _ = run(base, rows(), tmp_path, **more)
    counts = count_rows(rows())
    order = BinOrder(counts, 24, RowOrder(10, 7))
    assert result.steps == 2 * -(-order.n_rows // 2)
    taken = [i for b in order.bins(0)[:2] for i in b]
    model, total, n = load_base(base), 0.0, 0
    for i in taken:
        ids, labels = ROWS[i]
        logp = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        for j in range(1, len(ids)):
            if labels[j] != -100: total, n = total - logp[j - 1, labels[j]].item(), n + 1
    assert result.losses[0] == pytest.approx(total / n, abs=1e-5)

@pytest.mark.parametrize("more", [dict(sample_packing=True, sequence_len=64), dict(group_by_prefix=True), dict(sample_packing=True, group_by_prefix=True, sequence_len=64)])
def test_a_step_means_the_same_on_every_rung(base, tmp_path, more):
    results = [run(base, rows(SHARED), tmp_path / o, **{**MORE, **more}, step=o)[0] for o in ("share", "plain")]
    assert results[0].steps == results[1].steps and results[0].losses == pytest.approx(results[1].losses, rel=1e-5)

@pytest.mark.parametrize("more,said", [(dict(sample_packing=True), "sequence_len is not given"), (dict(sample_packing=True, sequence_len=64, group_by_length=True), "sample_packing orders rows too"),
                                       (dict(group_by_prefix=True, curriculum_sampling=True), "keeps the order of the data")])
def test_keys_that_contradict_each_other(base, tmp_path, more, said):
    with pytest.raises(ConfigError, match=said): run(base, rows(SHARED), tmp_path, **more)

@pytest.mark.slow
@pytest.mark.parametrize("more", [*(dict(step=o) for o in rungs), dict(sample_packing=True, sequence_len=48)], ids=lambda o: "-".join(map(str, o.values())))
def test_two_processes_equal_one(base, tmp_path, more):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    rows(SHARED).save_to_disk(str(tmp_path / "rows"))
    more = dict(MORE, **more)
    alone, _ = run(base, tmp_path / "rows", tmp_path / "alone", **more)
    (tmp_path / "run.py").write_text(SCRIPT.replace("sleep(.15)", "sleep(0)"))
    res = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port), str(tmp_path / "run.py"), str(base), str(tmp_path / "rows"),
                          str(tmp_path / "two"), json.dumps(dict(more, gradient_accumulation_steps=1))], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert res.returncode == 0, res.stderr[-9000:]
    result = json.loads((tmp_path / "two/run.json").read_text())["result"]
    losses = [o["loss"] for o in result["history"] if "loss" in o]
    assert result["steps"] == alone.steps and losses == pytest.approx(alone.losses, rel=1e-5)
