"Soft prompts: trained as peft does it by hand, resumed to the bit, loaded, answered with, and refused where they mean nothing."
# ruff: noqa: F811, fixtures are arguments
import json

import pytest
from test_train import OPTIONS, Stop, base, prepared, rows, stopping_at  # noqa: F401, two of them are fixtures

from segtune.segments import ConfigError, DataError, RunError

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
torch.set_num_threads(1)

SOFT = {k: v for k, v in OPTIONS.items() if not k.startswith("lora_")}
KINDS = dict(
    random=dict(adapter="prompt_tuning", num_virtual_tokens=4),
    text=dict(adapter="prompt_tuning", prompt_tuning_init_text="a question"),
    prefix=dict(adapter="prefix_tuning", num_virtual_tokens=4),
    projected=dict(adapter="prefix_tuning", num_virtual_tokens=4, prefix_projection=True, encoder_hidden_size=8),
    p_tuning=dict(adapter="p_tuning", num_virtual_tokens=4, encoder_hidden_size=8),
    lstm=dict(adapter="p_tuning", num_virtual_tokens=4, encoder_hidden_size=8, encoder_reparameterization_type="lstm", encoder_dropout=0.5),
    multitask=dict(adapter="multitask_prompt_tuning", num_virtual_tokens=4, num_ranks=2))


def run(base, data, out, log=None, **options):
    from segtune.training.run import train
    lines = []
    return train(base, data, output_dir=out, log=log or lines.append, **{**SOFT, **options}), lines

def files(out): return [(out / o).read_bytes() for o in ("adapter_model.safetensors", "soft_prompt.safetensors")]

def tasks(): return rows().add_column("task_ids", [0, 1] * 5)

def data(kind): return tasks() if kind == "multitask" else rows()


@pytest.mark.parametrize("kind", KINDS)
def test_training_moves_the_prompt_and_nothing_else_and_the_loss_falls(base, tmp_path, kind):
    from segtune.training.load import load_adapter
    result, lines = run(base, data(kind), tmp_path / "out", num_epochs=12, learning_rate=0.1, **KINDS[kind])
    assert sum(result.losses[-9:]) < sum(result.losses[:9]) - 0.05, "it learns"
    assert result.rung == "pad" and any("not pack: " in o for o in lines), "the ladder falls, and says why"
    trained, plain = load_adapter(tmp_path / "out")[0], load_adapter_free(base)
    inner = trained.get_base_model().state_dict()
    assert all(torch.equal(v, inner[k]) for k, v in plain.state_dict().items())

def load_adapter_free(base):
    from segtune.training.model import load_base
    return load_base(base)

@pytest.mark.parametrize("kind", KINDS)
def test_the_cheap_step_gives_the_losses_of_the_plain_one(base, tmp_path, kind):
    one, _ = run(base, data(kind), tmp_path / "pad", step="pad", **{**KINDS[kind], **no_dropout(kind)})
    two, _ = run(base, data(kind), tmp_path / "plain", step="plain", **{**KINDS[kind], **no_dropout(kind)})
    assert one.losses == pytest.approx(two.losses, rel=1e-5)

def no_dropout(kind): return dict(encoder_dropout=0.0) if kind == "lstm" else {}

@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_ends_in_the_same_bytes(base, tmp_path, kind):
    run(base, data(kind), tmp_path / "whole", save_steps=2, **KINDS[kind])
    with pytest.raises(Stop): run(base, data(kind), tmp_path / "left", log=stopping_at(5), save_steps=2, **KINDS[kind])
    again, _ = run(base, data(kind), tmp_path / "left", resume=True, save_steps=2, **KINDS[kind])
    assert again.resumed_from == 4 and files(tmp_path / "left") == files(tmp_path / "whole")

@pytest.mark.parametrize("kind", KINDS)
def test_the_best_weights_are_those_of_the_whole_prompt(base, tmp_path, kind):
    from segtune.training.heldout import heldout_loss
    from segtune.training.load import load_adapter
    held = data(kind).select(range(4))
    best, _ = run(base, data(kind), tmp_path / "out", eval_set=held, load_best_model_at_end=True, eval_steps=1, learning_rate=0.5, **KINDS[kind])
    model, _ = load_adapter(tmp_path / "out")
    total, n = heldout_loss(model, held)
    assert total / n == pytest.approx(min(best.eval_losses), rel=1e-4)

@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_answers_as_it_was_trained(base, tmp_path, kind):
    from segtune.training.generate import compare, generate
    from segtune.training.load import load_adapter
    from segtune.training.merge import merge
    run(base, data(kind), tmp_path / "out", num_epochs=6, learning_rate=0.05, **KINDS[kind])
    model, tok = load_adapter(tmp_path / "out")
    ids = [0, 40, 41]
    one = generate(model, tok, [ids], max_new_tokens=4)[0]
    x = torch.tensor([ids])
    with torch.no_grad():
        for _ in range(4): x = torch.cat([x, model(input_ids=x, attention_mask=torch.ones_like(x)).logits[:, -1:].argmax(-1)], 1)
    new = x[0, 3:].tolist()
    new = new[:new.index(1)] if 1 in new else new
    assert one.text == tok.decode(new)
    both = compare(model, tok, [ids], max_new_tokens=4)[0]
    assert both.tuned.text == one.text and both.base.text == generate(load_adapter_free(base).eval(), tok, [ids], max_new_tokens=4)[0].text
    with pytest.raises(RunError, match="no change of weights and cannot be merged"): merge(tmp_path / "out", tmp_path / "merged")

@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_is_trained_further(base, tmp_path, kind):
    run(base, data(kind), tmp_path / "first", num_epochs=6, learning_rate=0.05, **KINDS[kind])
    more = {k: v for k, v in KINDS[kind].items() if not k.startswith("prompt_tuning")}
    a, _ = run(base, data(kind), tmp_path / "first-end", eval_set=data(kind), max_steps=1, learning_rate=1e-9, lora_model_dir=tmp_path / "first", **more)
    from segtune.training.heldout import heldout_loss
    from segtune.training.load import load_adapter
    total, n = heldout_loss(load_adapter(tmp_path / "first")[0], data(kind))
    assert a.eval_before == pytest.approx(total / n, rel=1e-4), "it goes on where the other ended"

def test_each_task_has_a_prompt_of_its_own(base, tmp_path):
    "The same question has another answer in each task: one prompt cannot know both"
    import datasets
    pairs = [([0, 40 + i, 60 + t], [-100, -100, 60 + t], t) for i in range(8) for t in (0, 1)]
    both = datasets.Dataset.from_dict(dict(input_ids=[p[0] for p in pairs], labels=[p[1] for p in pairs], task_ids=[p[2] for p in pairs]))
    how = dict(num_epochs=30, learning_rate=0.05, num_virtual_tokens=8, micro_batch_size=4, gradient_accumulation_steps=1)
    told, _ = run("bundled:tiny", both, tmp_path / "told", adapter="multitask_prompt_tuning", **how)
    blind, _ = run("bundled:tiny", both.remove_columns("task_ids"), tmp_path / "blind", adapter="prompt_tuning", **how)
    assert told.losses[-1] < 0.5 < 0.6 < blind.losses[-1]
    from segtune.training.generate import generate
    from segtune.training.load import load_adapter
    from segtune.training.soft_prompts import answer_task
    model, tok = load_adapter(tmp_path / "told")
    from segtune.training.heldout import heldout_loss
    from segtune.training.losses import token_losses
    total, n = heldout_loss(model, both)
    each = token_losses(model, both)
    assert sum(o[2] for o in each) / len(each) == pytest.approx(total / n, rel=1e-4) and total / n < 0.5, "each row as its own task"
    said = [generate(answer_task(model, t), tok, [[0, 40]], max_new_tokens=1)[0].text for t in (0, 1)]
    assert said == [tok.decode([60]), tok.decode([61])]

def test_entries_of_datasets_are_the_tasks(tmp_path):
    import yaml

    from segtune.project import Project
    for name, answer in (("a", " yes"), ("b", " no")):
        row = dict(segments=[dict(label=False, text="Is it so?"), dict(label=True, text=answer)])
        (tmp_path / f"{name}.jsonl").write_text((json.dumps(row) + "\n") * (3 if name == "a" else 2))
    config = dict(base_model="bundled:tiny", datasets=[dict(path="a.jsonl"), dict(path="b.jsonl")], adapter="multitask_prompt_tuning",
                  num_virtual_tokens=4, max_steps=1, output_dir="out", test_datasets=[dict(path="b.jsonl")])
    (tmp_path / "c.yml").write_text(yaml.safe_dump(config))
    project = Project.open(tmp_path / "c.yml")
    train, held = project.rows()
    texts = [project.tokenizer.decode(r["input_ids"]) for r in train]
    assert [t for t in train["task_ids"]] == [0 if "yes" in o else 1 for o in texts] and sorted(train["task_ids"]) == [0, 0, 0, 1, 1]
    assert held["task_ids"] == [0, 0]
    project.train(log=lambda o: None)
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["num_tasks"] == 2

def test_a_task_is_named_on_the_command_line(tmp_path):
    "The same prompt, answered as in each task; a model without tasks, and a task that there is not, are refused"
    import yaml
    from typer.testing import CliRunner

    from segtune.cli import app
    from segtune.project import Project
    for name, answer in (("a", " yes"), ("b", " no")):
        row = dict(segments=[dict(label=False, text="Is it so?"), dict(label=True, text=answer)])
        (tmp_path / f"{name}.jsonl").write_text((json.dumps(row) + "\n") * 4)
    config = dict(base_model="bundled:tiny", datasets=[dict(path="a.jsonl"), dict(path="b.jsonl")], num_virtual_tokens=8, warmup_steps=0, seed=1)
    for name, more in (("tasks", dict(adapter="multitask_prompt_tuning", max_steps=60, learning_rate=0.05, micro_batch_size=8)), ("lora", dict(adapter="lora", lora_target_linear=True, max_steps=1))):
        keys = {k: v for k, v in config.items() if k != "num_virtual_tokens" or name == "tasks"}
        (tmp_path / f"{name}.yml").write_text(yaml.safe_dump(dict(keys, output_dir=name, **more)))
        Project.open(tmp_path / f"{name}.yml").train(log=lambda o: None)
    def said(name, *more): return CliRunner().invoke(app, ["generate", str(tmp_path / f"{name}.yml"), "--prompt", "Is it so?", "--max-new-tokens", "1", *more])
    assert [said("tasks", "--task", o).stdout.split()[-1][0] for o in "01"] == ["y", "n"] and said("tasks").stdout.split()[-1][0] == "y"
    assert "--task: the model was trained on tasks 0 to 1, got 2" in str(said("tasks", "--task", "2").exception)
    assert "--task: the model tells no tasks apart" in str(said("lora", "--task", "0").exception)

@pytest.mark.parametrize("more, said", [
    (dict(adapter="prompt_tuning", lora_r=8), "lora_r: says nothing about adapter: prompt_tuning"),
    (dict(adapter="lora", num_virtual_tokens=8), "num_virtual_tokens: says nothing about adapter: lora"),
    (dict(adapter="p_tuning", num_ranks=2), "it belongs to multitask_prompt_tuning"),
    (dict(adapter="p_tuning", loraplus_lr_ratio=4), "loraplus_lr_ratio: is about LoRA"),
    (dict(adapter="prefix_tuning", gradient_checkpointing=True), "gradient_checkpointing: computes keys"),
    (dict(adapter="p_tuning", tokens=["<new>"]), "tokens: a soft prompt trains no row of the embedding"),
    (dict(adapter="prompt_tuning", step="share"), "share")])
def test_what_means_nothing_is_refused_before_the_first_step(base, prepared, tmp_path, more, said):
    with pytest.raises(ConfigError) as e: run(base, prepared, tmp_path / "out", **more)
    assert said in str(e.value)

def test_a_prompt_takes_room(base, prepared, tmp_path):
    with pytest.raises(DataError, match="with its soft prompt, has 129 tokens"): run(base, prepared, tmp_path / "out", adapter="prompt_tuning", num_virtual_tokens=121)
