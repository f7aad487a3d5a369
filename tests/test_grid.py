"A grid: which commas mean one, and that an interrupted one goes on."
import json

import pytest

from segtune.grid import grid_points, run_grid
from segtune.segments import ConfigError

pytest.importorskip("torch")


@pytest.mark.parametrize("overrides, n", [
    ([], 1), (["lora_r=4"], 1), (["lora_r=4,8,16"], 3), (["lora_r=4,8", "seed=1,2"], 4), (["lora_r=4,4"], 1),
    (["lora_target_modules=q_proj,v_proj"], 1), (["lora_target_modules=[q_proj,v_proj]"], 1), (["output_dir=a,b"], 1),
    (["optim_args=a=1,b=2"], 1), (["bf16=auto,false"], 2), (["nonsense=1,2"], 1)])
def test_a_comma_is_a_grid_where_the_value_cannot_hold_one(overrides, n): assert len(grid_points(overrides)) == n

def test_an_empty_value_is_named():
    with pytest.raises(ConfigError, match="empty value between its commas"): grid_points(["lora_r=4,"])

@pytest.fixture
def config(tmp_path):
    row = dict(segments=[dict(text="What is it?", label=False), dict(text=" A word.</s>", label=True)])
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for _ in range(6)))
    (tmp_path / "c.yml").write_text("base_model: bundled:tiny\ndatasets: [{path: data.jsonl}]\ndataset_prepared_path: prepared\n"
                                    "adapter: lora\nlora_target_linear: true\nmax_steps: 2\noutput_dir: grid\n")
    return tmp_path / "c.yml"

def test_a_grid_that_stopped_goes_on(config):
    class Stop(Exception): pass
    def stopping(line):
        if "lora_r=4" in line: raise Stop
    points = grid_points(["lora_r=2,4"])
    with pytest.raises(Stop): run_grid(config, points, log=stopping)
    lines = []
    table = run_grid(config, points, resume=True, log=lines.append)
    assert [o["lora_r"] for o in table] == ["2", "4"] and sum("nothing to do" in o for o in lines) == 1
    assert len(list((config.parent / "prepared").iterdir())) == 1, "prepared once"
    assert (config.parent / "grid" / "grid.csv").read_text().startswith("lora_r,")

def test_a_wrong_value_shows_before_the_first_run(config):
    with pytest.raises(ConfigError, match="lora_dropout"): run_grid(config, grid_points(["lora_dropout=0.1,2"]), log=lambda o: None)
    assert not (config.parent / "grid").exists()
