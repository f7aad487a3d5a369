"Training: the loss is the one computed by hand, and a killed run ends in the same weights."
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from segtune.segments import ConfigError, DataError, RunError

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
torch.set_num_threads(1)

ROWS = [([0, 5, 6, 7, 8], [-100, -100, 6, 7, 8]), ([0, 9, 10], [-100, -100, 10]), ([0, 11, 12, 13], [-100, 11, 12, 13]),
        ([0, 4, 4, 4, 4, 4, 5, 1], [-100] * 6 + [5, 1]), ([0, 20, 21, 22], [-100, -100, -100, 22]), ([3, 30, 31], [3, 30, 31]),
        ([0, 40, 41, 42, 1], [-100, -100, 41, 42, 1]), ([0, 50, 51, 52, 53, 1], [-100] * 3 + [52, 53, 1]),
        ([0, 60, 1], [-100, 60, 1]), ([0, 61, 62, 63, 1], [-100, -100, -100, 63, 1])]
# ten rows, two at a time, two times a step: three steps an epoch, the last of them with one batch
OPTIONS = dict(lora_r=4, lora_alpha=8, lora_dropout=0.1, lora_target_linear=True, learning_rate=3e-3, micro_batch_size=2,
               gradient_accumulation_steps=2, num_epochs=4, warmup_steps=0, logging_steps=1, seed=7)


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    "A random Llama of two small layers, with a byte-level tokenizer of 300 tokens"
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM
    d = tmp_path_factory.mktemp("base")
    t = Tokenizer(models.BPE())
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>"]
    t.train_from_iterator(["a question and an answer"], trainers.BpeTrainer(vocab_size=300, special_tokens=special, show_progress=False,
                                                                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.save(str(d / "tokenizer.json"))
    (d / "tokenizer_config.json").write_text(json.dumps(dict(bos_token="<s>", eos_token="</s>", pad_token="<pad>", tokenizer_class="PreTrainedTokenizerFast")))
    torch.manual_seed(0)
    n = t.get_vocab_size()
    LlamaForCausalLM(LlamaConfig(vocab_size=n, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                                 max_position_embeddings=128, bos_token_id=0, eos_token_id=1, pad_token_id=2, tie_word_embeddings=True)).save_pretrained(d)
    return d

def rows(pairs=ROWS):
    import datasets
    return datasets.Dataset.from_dict(dict(input_ids=[i for i, _ in pairs], labels=[o for _, o in pairs], attention_mask=[[1] * len(i) for i, _ in pairs]))

@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    d = tmp_path_factory.mktemp("prepared") / "rows"
    rows().save_to_disk(str(d))
    return d

def run(base, data, out, log=None, **options):
    from segtune.training.run import train
    lines = []
    return train(base, data, output_dir=out, log=log or lines.append, **{**OPTIONS, **options}), lines

def weights(out): return (Path(out) / "adapter_model.safetensors").read_bytes()

class Stop(Exception): "Stands for a lost machine"

def stopping_at(step):
    "A log that ends the run when the line of a step appears"
    def log(line):
        if line.startswith(f"step {step:>2}/"): raise Stop
    return log


# ---- the loss

def test_the_first_loss_is_the_one_computed_by_hand(base, prepared, tmp_path):
    from segtune.training.batches import RowOrder
    from segtune.training.model import load_base
    result, _ = run(base, prepared, tmp_path / "out", max_steps=1)
    model, total, n = load_base(base), 0.0, 0
    for i in RowOrder(10, 7).order(0)[:4]:
        ids, labels = ROWS[i]
        logp = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        for j in range(1, len(ids)):
            if labels[j] != -100: total, n = total - logp[j - 1, labels[j]].item(), n + 1
    assert n > 4 and result.losses[0] == pytest.approx(total / n, abs=1e-5)

@pytest.mark.parametrize("change", [dict(micro_batch_size=4, gradient_accumulation_steps=1), dict(micro_batch_size=1, gradient_accumulation_steps=4)])
def test_how_a_step_is_dealt_into_batches_does_not_matter(base, prepared, tmp_path, change):
    a, _ = run(base, prepared, tmp_path / "a", lora_dropout=0.0, max_steps=4)
    b, _ = run(base, prepared, tmp_path / "b", lora_dropout=0.0, max_steps=4, **change)
    assert a.losses == pytest.approx(b.losses, abs=1e-5)

def test_held_out_loss_is_per_token_and_leaves_the_run_alone(base, prepared, tmp_path):
    from segtune.training.heldout import heldout_loss
    from segtune.training.model import load_base
    held = rows(ROWS[:5])
    a, _ = run(base, prepared, tmp_path / "a", max_steps=5)
    b, _ = run(base, prepared, tmp_path / "b", max_steps=5, eval_set=held, eval_steps=2)
    assert weights(tmp_path / "a") == weights(tmp_path / "b") and a.losses == b.losses
    total, n = heldout_loss(load_base(base), held, batch_size=1)
    assert n == 3 + 1 + 3 + 2 + 1 and b.eval_before == pytest.approx(total / n, abs=1e-5)
    assert [o["step"] for o in b.history if "eval_loss" in o] == [0, 2, 4, 5] and b.eval_after == b.eval_losses[-1]


# ---- killed and resumed

@pytest.fixture(scope="session")
def whole(base, prepared, tmp_path_factory):
    "The run that nobody interrupts"
    out = tmp_path_factory.mktemp("whole") / "out"
    result, _ = run(base, prepared, out, save_steps=4)
    assert result.steps == 12
    return result, weights(out)

SCRIPT = """
import json, sys, time, torch
torch.set_num_threads(1)
from segtune.training.run import train
def log(line):
    print(line, flush=True)
    if line.startswith('step'): time.sleep(.15)
base, data, out, options = sys.argv[1:]
train(base, data, output_dir=out, log=log, **json.loads(options))
"""

@pytest.fixture(scope="session")
def killed(base, prepared, tmp_path_factory):
    "What kill -9 leaves, some steps after the first checkpoint"
    out = tmp_path_factory.mktemp("killed") / "out"
    p = subprocess.Popen([sys.executable, "-c", SCRIPT, str(base), str(prepared), str(out), json.dumps(dict(OPTIONS, save_steps=4))],
                         stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    for line in p.stdout:
        if line.startswith("step  6/12"): break
    p.send_signal(signal.SIGKILL)
    assert p.wait() == -signal.SIGKILL
    assert (out / "checkpoint-4/complete.json").exists() and not (out / "adapter_model.safetensors").exists()
    return out

@pytest.fixture
def left(killed, tmp_path):
    "A copy of it, to resume"
    return Path(shutil.copytree(killed, tmp_path / "out"))

def test_a_killed_run_ends_in_the_same_weights(base, prepared, whole, left):
    result, lines = run(base, prepared, left, save_steps=4, resume=True)
    assert result.resumed_from == 4 and "resuming from checkpoint-4." in lines
    assert (result.steps, weights(left)) == (12, whole[1])
    assert result.losses == whole[0].losses

def test_killed_again_and_again(base, prepared, whole, left):
    "Three more interruptions, the first before a new checkpoint, the last after the last one"
    for at in (7, 9, 12):
        with pytest.raises(Stop): run(base, prepared, left, log=stopping_at(at), save_steps=4, resume=True)
    result, _ = run(base, prepared, left, save_steps=4, resume=True)
    assert (result.steps, weights(left), result.losses) == (12, whole[1], whole[0].losses)

def test_killed_while_a_checkpoint_was_written(base, prepared, whole, left):
    with pytest.raises(Stop): run(base, prepared, left, log=stopping_at(9), save_steps=4, resume=True)
    (left / "checkpoint-8/complete.json").unlink()
    (left / "checkpoint-8/optimizer.pt").unlink()
    result, lines = run(base, prepared, left, save_steps=4, resume=True)
    assert "checkpoint-8 is passed over: it was not written to its end." in lines
    assert (result.resumed_from, result.steps, weights(left)) == (4, 12, whole[1])

def test_a_checkpoint_half_deleted_is_passed_over(base, prepared, whole, left):
    (left / "checkpoint-4/rng_state.pth").unlink()
    result, lines = run(base, prepared, left, save_steps=4, resume=True)
    assert "checkpoint-4 is passed over: rng_state.pth is missing." in lines
    assert any("starting from the beginning" in o for o in lines)
    assert (result.resumed_from, result.steps, weights(left)) == (None, 12, whole[1])

@pytest.mark.parametrize("stop", [4, 8])
def test_an_epochs_end_is_a_good_place_to_stop(base, prepared, whole, tmp_path, stop):
    "Checkpoints at steps 3, 6 and 9 fall between epochs of three steps"
    with pytest.raises(Stop): run(base, prepared, tmp_path, log=stopping_at(stop), save_steps=3)
    result, _ = run(base, prepared, tmp_path, save_steps=3, auto_resume_from_checkpoints=True)
    assert result.resumed_from == stop // 3 * 3 and weights(tmp_path) == whole[1]

@pytest.mark.parametrize("noted", [False, True])
def test_killed_after_the_last_step(base, prepared, tmp_path, noted):
    "Five steps end in the middle of an epoch: no sixth one is made"
    first, _ = run(base, prepared, tmp_path, max_steps=5)
    expected = weights(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    if not noted:
        state = json.loads((tmp_path / "run.json").read_text())
        (tmp_path / "run.json").write_text(json.dumps(dict(state, finished=False, result=None)))
    result, _ = run(base, prepared, tmp_path, max_steps=5, resume=True)
    assert (result.steps, result.losses, weights(tmp_path)) == (5, first.losses, expected)

@pytest.mark.parametrize("more", [dict(group_by_length=True), dict(optimizer="adamw_torch"), dict(neftune_noise_alpha=5), dict(adapter=None, learning_rate=1e-3), dict(gradient_checkpointing=True),
                                  dict(tokens=["<|note|>"]), dict(lora_modules_to_save=["embed_tokens"])], ids=lambda o: next(iter(o)))
def test_resuming_holds_for_every_kind_of_run(base, prepared, tmp_path, more):
    more = dict(more, max_steps=7, save_steps=2)
    name = "model.safetensors" if "adapter" in more else "adapter_model.safetensors"
    run(base, prepared, tmp_path / "a", **more)
    with pytest.raises(Stop): run(base, prepared, tmp_path / "b", log=_stop_at_6_of_7, **more)
    result, _ = run(base, prepared, tmp_path / "b", resume=True, **more)
    assert result.resumed_from in (4, 6) and (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

def _stop_at_6_of_7(line):
    if line.startswith("step 6/7"): raise Stop

def test_early_stopping_and_the_best_weights_survive_a_kill(base, prepared, tmp_path):
    "A large learning rate, and held-out rows unlike the others: the loss soon rises"
    more = dict(eval_set=rows([([0, 200, 201, 202], [-100, 200, 201, 202])]), eval_steps=2, early_stopping_patience=2, load_best_model_at_end=True, num_epochs=10, learning_rate=3e-2)
    a, _ = run(base, prepared, tmp_path / "a", **more)
    assert a.steps < 30 and a.eval_after == min(a.eval_losses)
    for at in range(3, a.steps, 4):
        with pytest.raises(Stop): run(base, prepared, tmp_path / "b", log=stopping_at(at), resume=True, **more)
    b, _ = run(base, prepared, tmp_path / "b", resume=True, **more)
    assert (a.steps, a.eval_losses, weights(tmp_path / "a")) == (b.steps, b.eval_losses, weights(tmp_path / "b"))

def test_only_the_newest_checkpoints_stay(base, prepared, tmp_path):
    run(base, prepared, tmp_path, max_steps=6, save_steps=1, save_total_limit=2)
    assert sorted(o.name for o in tmp_path.glob("checkpoint-*")) == ["checkpoint-5", "checkpoint-6"]


# ---- what is refused, and what is said

@pytest.mark.parametrize("more,said", [(dict(learning_rate=1e-3), "learning_rate 0.003 -> 0.001"), (dict(seed=8), "seed 7 -> 8"), (dict(data_seed=1), "data_seed None -> 1"),
                                       (dict(lora_r=8), "lora_r 4 -> 8"), (dict(num_epochs=5), "total_steps 12 -> 15"), (dict(micro_batch_size=4), "micro_batch_size 2 -> 4")])
def test_another_run_is_not_resumed(base, prepared, left, more, said):
    with pytest.raises(RunError, match="cannot be resumed") as e: run(base, prepared, left, save_steps=4, resume=True, **more)
    assert said in str(e.value) and (left / "checkpoint-4/complete.json").exists()

def test_other_data_are_not_resumed(base, left):
    with pytest.raises(RunError, match="train_rows changed"): run(base, rows(ROWS[:9] + [([0, 70, 71], [-100, 70, 71])]), left, resume=True)

def test_how_a_run_is_watched_may_change(base, prepared, whole, left):
    result, _ = run(base, prepared, left, resume=True, save_steps=5, logging_steps=3, save_total_limit=1, eval_set=rows(ROWS[:2]), eval_steps=3)
    assert result.steps == 12 and weights(left) == whole[1]

def test_a_directory_in_use_is_left_alone_unless_told(base, prepared, whole, left):
    with pytest.raises(RunError, match=r"holds an unfinished run, stopped after checkpoint-4. Resume it \(--resume\)"): run(base, prepared, left)
    assert (left / "checkpoint-4/complete.json").exists()
    result, _ = run(base, prepared, left, overwrite=True)
    assert (result.resumed_from, weights(left)) == (None, whole[1])
    with pytest.raises(RunError, match="holds a finished run of 12 steps"): run(base, prepared, left)
    again, lines = run(base, prepared, left, resume=True)
    assert again.already_finished and again.losses == result.losses and "nothing to do" in lines[-1]

def test_nothing_to_resume_is_said(base, prepared, tmp_path):
    result, lines = run(base, prepared, tmp_path / "new", resume=True, max_steps=1)
    assert result.steps == 1 and any("nothing to resume" in o and "starting from the beginning" in o for o in lines)

def test_weights_only_cannot_be_resumed(base, prepared, tmp_path):
    with pytest.raises(Stop): run(base, prepared, tmp_path, log=stopping_at(6), save_steps=4, save_only_model=True)
    _, lines = run(base, prepared, tmp_path, resume=True)
    assert any("save_only_model" in o for o in lines)

def test_rows_without_a_trained_token(base, tmp_path):
    masked = ([0, 5, 6], [-100] * 3)
    with pytest.raises(DataError, match="none of the 2 rows has a trained token"): run(base, rows([masked] * 2), tmp_path)
    with pytest.raises(DataError, match=r"step \d+ would read 4 rows and train none.*; 19 of 20 rows have nothing trained"): run(base, rows([masked] * 19 + ROWS[:1]), tmp_path)
    _, lines = run(base, rows([*ROWS, masked]), tmp_path, max_steps=3)
    assert "1 of 11 rows have nothing trained, the first is row 10 (from 0)." in lines

def test_a_loss_that_is_no_number_stops_the_run(base, prepared, tmp_path):
    with pytest.raises(RunError, match=r"the loss is (nan|inf).*Lower learning_rate \(it is 1e\+30\)"): run(base, prepared, tmp_path, learning_rate=1e30, max_grad_norm=1e30, save_steps=1, lr_scheduler="constant")

@pytest.mark.parametrize("more,said", [(dict(optimizer="adamw_torhc"), "Did you mean 'adamw_torch'"), (dict(lora_target_linear=False), "set lora_target_linear: true"),
                                       (dict(adapter="qlora"), "Set load_in_4bit: true, or adapter: lora"), (dict(lora_rank=8), "Did you mean lora_r"),
                                       (dict(early_stopping_patience=2), "Set val_set_size"), (dict(sequence_len=4), "has 5 tokens, and sequence_len is 4")])
def test_mistakes_are_named(base, prepared, tmp_path, more, said):
    with pytest.raises((ConfigError, DataError)) as e: run(base, prepared, tmp_path / "out", **more)
    assert said in str(e.value) and not (tmp_path / "out/adapter_model.safetensors").exists()

def test_a_failed_start_leaves_nothing_in_the_way(base, prepared, tmp_path):
    with pytest.raises(ConfigError): run(base, prepared, tmp_path, lora_target_linear=False)
    assert run(base, prepared, tmp_path, max_steps=1)[0].steps == 1

def test_the_output_directory_stands_alone(base, prepared, tmp_path):
    "Adapter, tokenizer and curve; the user's own files stay"
    (tmp_path / "README.md").write_text("mine")
    result, lines = run(base, prepared, tmp_path, eval_set=rows(ROWS[:2]), tokens=["<|note|>"])
    from segtune.tokenizer import load_tokenizer
    assert load_tokenizer(tmp_path).backend.token_to_id("<|note|>") and (tmp_path / "README.md").read_text() == "mine"
    conf = json.loads((tmp_path / "adapter_config.json").read_text())
    assert conf["base_model_name_or_path"] == str(base) and conf["trainable_token_indices"]
    with open(tmp_path / "loss.csv") as f: table = list(csv.DictReader(f))
    assert list(table[0]) == ["step", "epoch", "loss", "learning_rate", "eval_loss"] and len(table) == 13
    assert [float(o["loss"]) for o in table if o["loss"]] == result.losses and (tmp_path / "loss.png").stat().st_size > 5000
    assert [o for o in lines if "parameters are trained" in o] and not any(o.startswith("{") for o in lines)

def test_the_trainer_prints_nothing_of_its_own(base, prepared, tmp_path, capfd):
    run(base, prepared, tmp_path, max_steps=2, eval_set=rows(ROWS[:2]))
    assert capfd.readouterr() == ("", "")

@pytest.mark.slow
def test_two_processes_train_one_model(base, prepared, tmp_path):
    "Half the accumulation in each of two processes makes the same steps on the same rows"
    import socket
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    more = dict(OPTIONS, lora_dropout=0.0, num_epochs=2)
    alone, _ = run(base, prepared, tmp_path / "alone", **more)
    script = SCRIPT.replace("sleep(.15)", "sleep(0)")
    (tmp_path / "run.py").write_text(script)
    res = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port), str(tmp_path / "run.py"), str(base), str(prepared),
                          str(tmp_path / "two"), json.dumps(dict(more, gradient_accumulation_steps=1))], capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert res.returncode == 0, res.stderr[-2000:]
    told = [o for o in res.stdout.splitlines() if o.startswith("step")]
    assert len(told) == alone.steps == 6 and told[0].startswith("step 1/6")
    result = json.loads((tmp_path / "two/run.json").read_text())["result"]
    assert result["steps"] == 6 and result["history"][0]["loss"] == pytest.approx(alone.losses[0], abs=1e-4)
    assert [o["loss"] for o in result["history"]][:3] == pytest.approx(alone.losses[:3], abs=2e-3)
