"Every name of a file or directory, in a config or on the command line, that cannot be: said at once, in one sentence, exit code 2, and nothing is made."
import json
import os
import shutil
import sys
from importlib import import_module

import pytest

CONFIG = """\
base_model: bundled:tiny
adapter: lora
lora_r: 2
lora_target_linear: true
max_steps: 1
save_steps: 1
val_set_size: 2
datasets: [{path: rows.jsonl}]
dataset_prepared_path: prepared
output_dir: out
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    rows = [dict(segments=[dict(text=f"Q{i}", label=False), dict(text=f" A{i}<|im_end|>", label=True)]) for i in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(o) + "\n" for o in rows))
    (tmp_path / "c.yml").write_text(CONFIG)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("mine")
    os.symlink("gone", tmp_path / "link")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def answer(*argv):
    "Exit code and last sentence of a command line, in this process"
    import segtune.cli as cli

    before, sys.argv = sys.argv, ["segtune", *map(str, argv)]
    try: return cli._run()
    finally: sys.argv = before


def tree(folder): return {o.relative_to(folder).as_posix(): o.is_file() and o.read_bytes() for o in folder.rglob("*") if "/ready/" not in str(o)}


def refused(project, *argv):
    "The sentence, after which everything is as it was"
    before = tree(project)
    code, message = answer(*argv)
    assert code == 2 and len(message.splitlines()) == 1, (argv, code, message)
    assert tree(project) == before
    return message


def never(monkeypatch, *places):
    "What must not be reached"
    def reached(*args, **kwargs): raise AssertionError("reached")
    for place in places:
        module, _, name = place.rpartition(".")
        monkeypatch.setattr(import_module(f"segtune.{module}"), name, reached)


BAD = {"file": "is a file", "file/run": "is a file, so nothing can lie below it", "link": "a link that leads nowhere"}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("argv", [["train", "c.yml", "--set", "output_dir={}"], ["train", "c.yml", "--set", "output_dir={}", "--set", "lora_r=2,4"],
    ["preprocess", "c.yml", "--set", "dataset_prepared_path={}"], ["lint", "c.yml", "--set", "dataset_prepared_path={}"],
    ["cache", "list", "c.yml", "--set", "dataset_prepared_path={}"], ["merge", "c.yml", "-o", "{}"], ["init", "{}"], ["demo", "{}/demo"]], ids=" ".join)
def test_a_directory_that_cannot_be_made(project, monkeypatch, bad, argv):
    never(monkeypatch, "project.prepare_and_lint", "demo.write_stdlib")
    message = refused(project, *(o.format(bad) for o in argv))
    assert BAD[bad] in message or (argv[0], bad) == ("init", "file") or argv[0] == "demo" and "file" in message + bad
    name = next((o.partition("=")[0] for o in argv if "{}" in o and "=" in o), "--out" if "merge" in argv else "")
    assert name in message


@pytest.mark.parametrize("argv", [["inspect", "c.yml", "--html"], ["evaluate", "c.yml", "--predictions"], ["verify", "c.yml", "-o"], ["eject", "c.yml", "-o"]], ids=" ".join)
@pytest.mark.parametrize("bad", ["full", "nowhere/x.jsonl", "file/x.jsonl", "link/x.jsonl"])
def test_a_file_that_cannot_be_written(project, monkeypatch, bad, argv):
    never(monkeypatch, "project.prepare_and_lint")
    refused(project, *argv, bad)


ADAPTERS = ["nowhere", "file", "full", "link"]


@pytest.mark.parametrize("bad", ADAPTERS)
@pytest.mark.parametrize("argv", [["train", "c.yml", "--set", "lora_model_dir={}"], ["train", "c.yml", "--set", "resume_from_checkpoint={}"],
    ["train", "c.yml", "--set", "deepspeed={}"], ["generate", "c.yml", "--set", "output_dir={}"], ["evaluate", "c.yml", "--set", "output_dir={}"],
    ["merge", "c.yml", "-o", "merged", "--set", "output_dir={}"], ["inspect", "c.yml", "--adapter", "{}"],
    ["preprocess", "c.yml", "--drop", "{}"], ["train", "c.yml", "--set", "base_model={}"], ["train", "c.yml", "--set", "tokenizer_config={}"],
    ["train", "c.yml", "--set", "val_set_size=0", "--set", "test_datasets=[{{path: {}}}]"]], ids=" ".join)
def test_what_is_read_must_be_there(project, monkeypatch, bad, argv):
    "before a row is prepared, and before a model is loaded"
    if bad == "file" and argv[-1].startswith(("test_datasets", "deepspeed")): return
    if argv[0] != "preprocess" and "drop" not in argv: never(monkeypatch, "project.prepare_and_lint")
    refused(project, *(o.format(bad) for o in argv))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "A finished run with a checkpoint"
    pytest.importorskip("torch")
    d = tmp_path_factory.mktemp("trained")
    rows = [dict(segments=[dict(text=f"Q{i}", label=False), dict(text=f" A{i}<|im_end|>", label=True)]) for i in range(12)]
    (d / "rows.jsonl").write_text("".join(json.dumps(o) + "\n" for o in rows))
    (d / "c.yml").write_text(CONFIG)
    assert answer("train", d / "c.yml") == (0, "")
    return d / "out"


def test_half_an_adapter_is_refused_before_data_and_model(project, trained, monkeypatch):
    never(monkeypatch, "project.prepare_and_lint", "training.load.load_base", "training.run.load_base")
    d = shutil.copytree(trained, project / "half")
    weights = (d / "adapter_model.safetensors").read_bytes()
    for data in (weights[:1000], None):
        (d / "adapter_model.safetensors").unlink()
        if data: (d / "adapter_model.safetensors").write_bytes(data)
        wanted = "adapter_model.safetensors: cannot be read" if data else "holds no weights of an adapter"
        assert wanted in refused(project, "train", "c.yml", "--set", f"lora_model_dir={d}")
        for argv in (["generate", "c.yml"], ["evaluate", "c.yml"], ["merge", "c.yml", "-o", "merged"]):
            assert wanted in refused(project, *argv, "--set", f"output_dir={d}")
        assert wanted in refused(project, "inspect", "c.yml", "--adapter", d)
        (d / "adapter_model.safetensors").write_bytes(weights)
    assert "lora_model_dir is LORA" in refused(project, "train", "c.yml", "--set", f"lora_model_dir={d}", "--set", "adapter=prompt_tuning",
        "--set", "lora_r=null", "--set", "lora_target_linear=null")
    (d / "checkpoint-1/complete.json").unlink()
    assert "was not written to its end" in refused(project, "train", "c.yml", "--set", f"resume_from_checkpoint={d}/checkpoint-1")


def another(place, **sizes):
    "A base model of other sizes, with the bundled one's tokenizer; its weights are never read"
    from segtune.models import bundled
    place.mkdir()
    for o in os.scandir(bundled("tiny")):
        if o.name.startswith(("tokenizer", "special")): shutil.copy(o.path, place)
    conf = json.loads((bundled("tiny") / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**conf, **sizes}))
    (place / "model.safetensors").write_bytes(b"")
    return place


@pytest.mark.parametrize("sizes, wanted", [(dict(num_hidden_layers=1), "ends before"), (dict(intermediate_size=96), "features"),
                                           (dict(hidden_size=32, head_dim=8), "features")], ids=str)
def test_an_adapter_of_another_base_model_is_refused_before_the_model_is_loaded(project, trained, monkeypatch, sizes, wanted):
    from segtune.segments import ConfigError, RunError
    from segtune.training.load import load_adapter
    never(monkeypatch, "training.load.load_base", "training.run.load_base")
    base = another(project / "base", **sizes)
    before = tree(project)
    code, message = answer("train", "c.yml", "--set", f"base_model={base}", "--set", f"lora_model_dir={trained}")
    assert code == 2 and wanted in message and "lora_model_dir: it does not fit the base model" in message and len(message.splitlines()) == 1
    assert {k: v for k, v in tree(project).items() if not k.startswith("prepared")} == before
    with pytest.raises(RunError, match=wanted): load_adapter(trained, base)
    assert issubclass(ConfigError, ValueError)


def test_a_directory_of_somebody_else(project, monkeypatch):
    "whoever may not write there is told before the work; root may write everywhere, so the system's answer is played"
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **how: real(path, mode, **how) and not str(path).endswith("full"))
    never(monkeypatch, "project.prepare_and_lint")
    for argv in (["train", "c.yml", "--set", "output_dir=full/run"], ["train", "c.yml", "--set", "output_dir=full"], ["preprocess", "c.yml", "--set", "dataset_prepared_path=full/p"],
                 ["inspect", "c.yml", "--html", "full/x.html"], ["merge", "c.yml", "-o", "full/m"], ["eject", "c.yml", "-o", "full/x.jsonl"], ["init", "full/project"]):
        assert "nothing can be written in" in refused(project, *argv)


def test_what_the_system_refuses_later_is_no_failed_run(project, monkeypatch):
    from segtune.segments import RunError
    from segtune.training.checkpoints import hold_directory
    monkeypatch.setattr("segtune.training.checkpoints.check_writable", lambda *args: None)
    with pytest.raises(RunError, match="cannot be written") as e, hold_directory("file/run"): pass
    assert e.value.exit_code == 2


def test_a_read_only_directory_that_holds_the_data_is_used(project, monkeypatch):
    assert answer("preprocess", "c.yml") == (0, "")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode, **how: real(path, mode, **how) and not str(path).endswith("prepared"))
    assert answer("preprocess", "c.yml") == (0, "")


def test_a_pipe_is_a_file_that_can_be_written(project):
    assert answer("inspect", "c.yml", "--html", os.devnull) == (0, "")
