"While it works: something moves, standard output stays where it was sent, and Ctrl-C ends every phase with one sentence."
import json
import os
import pty
import re
import signal
import subprocess
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

CONFIG = """\
base_model: bundled:tiny
adapter: lora
lora_target_linear: true
max_steps: 3
save_steps: 1
val_set_size: 2
datasets: [{path: a.jsonl}]
output_dir: out
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    d = tmp_path_factory.mktemp("waiting")
    answers = [dict(segments=[dict(text=f"Q{i}", label=False), dict(text=f" A{i}<|im_end|>", label=True)]) for i in range(12)]
    (d / "a.jsonl").write_text("".join(json.dumps(o) + "\n" for o in answers))
    (d / "c.yml").write_text(CONFIG)
    return d


def answer(*argv):
    "Exit code and last sentence of a command line, in this process"
    import segtune.cli as cli

    before, sys.argv = sys.argv, ["segtune", *map(str, argv)]
    try:
        return cli._run()
    finally:
        sys.argv = before


def trained(project):
    config = project / "c.yml"
    if not (project / "out/run.json").exists():
        assert answer("train", config) == (0, "")
    return config


def interrupt(monkeypatch, place):
    "Ctrl-C arrives when this function is called"
    from importlib import import_module

    module, _, name = place.rpartition(".")
    owner = import_module(f"segtune.training.{module}")
    real = getattr(owner, name)

    def call(*args, **how):
        monkeypatch.setattr(owner, name, real)
        signal.raise_signal(signal.SIGINT)
        return real(*args, **how)

    monkeypatch.setattr(owner, name, call)


PHASES = {
    "loading": ("run._model", "stopped by Ctrl-C at once. No checkpoint"),
    "proof": ("run._step", "stopped by Ctrl-C at once. No checkpoint"),
    "held out": ("trainer.measure", "stopped by Ctrl-C after step 1 of 3, which is saved"),
    "step": ("trainer.progress_line", "stopped by Ctrl-C after step 1 of 3, which is saved"),
    "checkpoint": ("trainer._complete_checkpoint", "stopped by Ctrl-C after step 2 of 3, which is saved"),
    "saving": ("run.save_adapter", "to go on from checkpoint-3"),
}


@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c_ends_training_with_one_sentence(project, tmp_path, monkeypatch, phase):
    place, said = PHASES[phase]
    interrupt(monkeypatch, place)
    asked = ["train", project / "c.yml", "--set", f"output_dir={tmp_path / 'out'}"]
    code, message = answer(*asked)
    assert code == 130 and said in message and len(message.splitlines()) == 1
    assert answer(*asked, "--resume") == (0, "")


def test_ctrl_c_before_the_first_step_leaves_the_run_that_was_to_be_overwritten(project, tmp_path, monkeypatch):
    asked = ["train", project / "c.yml", "--set", f"output_dir={tmp_path / 'out'}"]
    assert answer(*asked) == (0, "")
    before = {o: o.read_bytes() for o in (tmp_path / "out").rglob("*") if o.is_file()}
    interrupt(monkeypatch, "run._step")
    code, message = answer(*asked, "--set", "max_steps=2", "--overwrite")
    assert code == 130 and "No checkpoint was saved that --resume could go on from: run the command again" in message
    assert {o: o.read_bytes() for o in (tmp_path / "out").rglob("*") if o.is_file()} == before


MISTAKES = {"lora_target_modules=[nope]": "no module 'nope'", "lora_model_dir=nodir": "there is no adapter in 'nodir'"}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_that_shows_when_the_model_is_there_leaves_nothing(project, tmp_path, mistake):
    out = tmp_path / "out"
    code, message = answer("train", project / "c.yml", "--set", f"output_dir={out}", "--set", mistake)
    assert code == 2 and MISTAKES[mistake] in message and len(message.splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize("place", ["load.load_adapter", "generate.generate", "generate._answer_batch"])
def test_ctrl_c_ends_generate(project, monkeypatch, place):
    config = trained(project)
    interrupt(monkeypatch, place)
    assert answer("generate", config, "--max-new-tokens", 4) == (130, "interrupted")


@pytest.mark.parametrize("place", ["load.load_adapter", "evaluate.score_tokens", "evaluate.generate"])
def test_ctrl_c_ends_evaluate(project, monkeypatch, place):
    config = trained(project)
    interrupt(monkeypatch, place)
    predictions = project / "answers.jsonl"
    assert answer("evaluate", config, "--predictions", predictions) == (130, "interrupted")
    assert not [o for o in project.iterdir() if o.name.startswith("answers")]


def test_ctrl_c_ends_merge_and_leaves_nothing(project, monkeypatch):
    config = trained(project)
    interrupt(monkeypatch, "merge.save_tokenizer")
    assert answer("merge", config, "-o", project / "merged") == (130, "interrupted")
    assert not [o for o in project.iterdir() if "merged" in o.name]


# ---- a terminal

WORK = """
import time
from segtune.training.progress import LiveBar, progress
with progress('loading the model'):
    print('a line', flush=True)
    time.sleep(.3)
bar = LiveBar(2)
print('step 1/2', flush=True)
bar.step(1, 2., 1e-3)
time.sleep(.3)
bar.close()
"""


def on_screen(*argv, both=False, **env):
    "Standard output of a command, and what it put on the terminal that is its standard error (`both`: its output too)"
    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", **env}
    p = subprocess.Popen(argv, stdout=theirs if both else subprocess.PIPE, stderr=theirs, env=env)
    os.close(theirs)
    screen = b""
    while True:
        try:
            if not (piece := os.read(ours, 4096)):
                break
        except OSError:
            break   # the other end is closed
        screen += piece
    out = (p.communicate()[0] or b"").decode()
    assert p.returncode == 0, screen
    return out, screen.decode()


def test_what_moves_leaves_standard_output_where_it_was_sent():
    "`segtune train config.yml > log.txt`: the bar is on the terminal, the lines are in the file"
    out, screen = on_screen(sys.executable, "-c", WORK)
    assert out == "a line\nstep 1/2\n"
    assert "loading the model" in screen and "loss 2.0000" in screen and "a line" not in screen
    assert len({o for o in screen if "\u2800" <= o <= "\u28ff"}) > 1   # the spinner turns


@pytest.mark.parametrize("env", [dict(TERM="dumb"), dict(RANK="1")])
def test_nothing_moves_on_a_dumb_terminal_or_in_another_process(env):
    assert on_screen(sys.executable, "-c", WORK, **env) == ("a line\nstep 1/2\n", "")


MAIN = "from segtune.cli import main; main()"
COLD = """
import sys, time
class Cold:
    "A disk on which two libraries take their time"
    def find_spec(self, name, *_):
        if name in ('typer', 'pydantic'): time.sleep(.5)
sys.meta_path.insert(0, Cold())
""" + MAIN


def prepare_on_a_cold_disk(project, tmp_path, *more):
    return sys.executable, "-c", COLD, "preprocess", project / "c.yml", "--set", f"dataset_prepared_path={tmp_path}", *more


def test_something_moves_while_the_libraries_load_and_is_gone_before_the_first_word(project, tmp_path):
    _, screen = on_screen(*prepare_on_a_cold_disk(project, tmp_path), both=True)
    waiting, _, words = screen.rpartition("\r\x1b[K")
    assert waiting.startswith("\r\x1b[K") and "starting" in waiting
    assert len({o for o in waiting if "\u2800" <= o <= "\u28ff"}) > 1
    assert words.startswith("train: ") and not any("\u2800" <= o <= "\u28ff" for o in words)


def test_what_moves_before_the_first_word_is_not_in_a_file(project, tmp_path):
    out, screen = on_screen(*prepare_on_a_cold_disk(project, tmp_path))
    assert out.startswith("train: ") and "\r" not in out and "\x1b" not in out
    assert "starting" in screen and screen.endswith("\r\x1b[K")
    p = subprocess.run([*prepare_on_a_cold_disk(project, tmp_path, "--set", "seed=7")], capture_output=True, text=True)
    assert p.returncode == 0 and p.stdout.startswith("train: ") and p.stderr == ""


@pytest.mark.parametrize("env", [dict(TERM="dumb"), dict(RANK="1"), dict(JPY_PARENT_PID="1")], ids=["dumb", "another process", "notebook"])
def test_nothing_moves_before_the_first_word_where_nobody_would_see_it_move(project, tmp_path, env):
    assert on_screen(*prepare_on_a_cold_disk(project, tmp_path), **env)[1] == ""


SLOW_FORMAT = """
import time
def rows(row):
    time.sleep(.04)
    return row['segments']
"""


def test_something_moves_after_a_note_too(project, tmp_path):
    "The notes of the config come before the data is read"
    (tmp_path / "slow_format.py").write_text(SLOW_FORMAT)
    config = CONFIG.replace("{path: a.jsonl}", f"{{path: {project / 'a.jsonl'}, type: slow_format.rows}}") + "wandb_project: x\n"
    (tmp_path / "c.yml").write_text(config)
    _, screen = on_screen(sys.executable, "-c", MAIN, "preprocess", tmp_path / "c.yml", both=True)
    after = screen.partition("note: ")[2]
    assert after and "reading the data" in after and "train: " in after.rpartition("reading the data")[2]


@pytest.mark.slow
def test_every_phase_of_a_run_moves(project, tmp_path):
    asked = "train", project / "c.yml", "--set", f"output_dir={tmp_path}"
    _, screen = on_screen(sys.executable, "-c", COLD, *asked, both=True)
    for phase in ("starting", "loading the model", "proving the step", "setting up the trainer", "step ", "saving"):
        assert phase in screen
    assert "0:00 left" in screen and not re.search(r"\n\W*(\d+:\d+ )?left", screen)   # 80 columns: no line of a step breaks
