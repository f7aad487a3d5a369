"Rows encoded on a Ray cluster: the same bytes, also where a worker dies on the way."
import builtins
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import make_tokenizer
from test_workers import alive, children, contents, preprocess, project, segtune, sources, until

from segtune.data.findings import prepare_and_lint
from segtune.segments import MissingError

ONCE = '''
import os, signal
from pathlib import Path
def dies_once(row):
    mark = Path(__file__).with_name('died')
    if row['a']==' 2500' and not mark.exists():
        mark.write_text('')
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(row)
'''


def test_without_ray_it_is_said_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__
    def no_ray(name, *args, **kwargs):
        if name == 'ray': raise ImportError(name)
        return real(name, *args, **kwargs)
    monkeypatch.setattr(builtins, '__import__', no_ray)
    d, tok = project(tmp_path, 5), make_tokenizer('gpt2')
    with pytest.raises(MissingError, match=r'pip install "segtune\[ray\]"'):
        prepare_and_lint(sources(d, tok, lambda row: [(row['q'], False), (row['a'], True)]), tok, d/'out', dataset_engine='ray')
    assert not (d/'out').exists()


@pytest.mark.slow
def test_a_cluster_writes_the_bytes_of_one_process_though_a_worker_is_killed(tmp_path):
    pytest.importorskip('ray')
    d = project(tmp_path, type='my_formats.dies_once')
    (d/'my_formats.py').write_text((d/'my_formats.py').read_text()+ONCE)
    far = preprocess(d, '--engine', 'ray', '--set', 'dataset_prepared_path=far')
    assert far.returncode == 0, far.stderr
    assert (d/'died').exists(), 'no worker was killed'
    assert preprocess(d, '--set', 'dataset_prepared_path=near').returncode == 0
    assert contents(d/'far') == contents(d/'near')


SLOWLY = '''
import time
def slowly(row):
    time.sleep(0.002)
    return plain(row)
'''


def slow_project(tmp_path, n):
    d = project(tmp_path, n, type='my_formats.slowly')
    (d/'my_formats.py').write_text((d/'my_formats.py').read_text()+SLOWLY)
    assert preprocess(d, '--workers', '2', '--set', 'dataset_prepared_path=near').returncode == 0
    return d


def start(d, out, **env):
    command = [*segtune, 'preprocess', 'config.yml', '--engine', 'ray', '--set', f'dataset_prepared_path={out}']
    return subprocess.Popen(command, cwd=d, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, **env})


def family(pid):
    "A process and all that it started, directly or not"
    found = [pid]
    for p in found: found += children(p)
    return found


def kill(pid):
    try: os.kill(pid, signal.SIGKILL)
    except ProcessLookupError: pass


@pytest.fixture
def short_tmp():
    "A temporary directory of the test's own, with a path that is short enough for sockets"
    d = Path(tempfile.mkdtemp(prefix='r', dir='/tmp'))
    yield d
    shutil.rmtree(d, ignore_errors=True)


@pytest.mark.slow
def test_kills_of_a_run_and_of_its_ray_leave_nothing(tmp_path, short_tmp):
    "14 times kill -9 at a random moment: of the run, of its driver, or of any process of the Ray that it started"
    pytest.importorskip('ray')
    d, draw, env = slow_project(tmp_path, 3000), random.Random(3), dict(TMPDIR=str(short_tmp), RAY_ADDRESS='local')
    key, = os.listdir(d/'near')
    began = time.time()
    assert start(d, 'far', **env).wait(timeout=120) == 0
    took, ended = time.time()-began, 0
    assert contents(d/'far') == contents(d/'near') and os.listdir(short_tmp) == []
    shutil.rmtree(d/'far')
    for _ in range(14):
        run = start(d, 'far', **env)
        time.sleep(draw.uniform(0.1, 1)*took)
        victims = family(run.pid)
        kill(draw.choice(victims))
        _, said = run.communicate(timeout=150)
        until(lambda gone=victims: not any(map(alive, gone)))
        print('killed', flush=True)
        assert 'Traceback' not in said, said
        seen = {o for o in os.listdir(d/'far') if not o.startswith('.')} if (d/'far').exists() else set()
        assert seen <= {key} and (run.returncode != 0 or seen), said
        if not seen: continue
        assert contents(d/'far'/key) == contents(d/'near'/key)
        shutil.rmtree(d/'far'/key)
        ended += 1
    assert ended < 14, 'no run was killed before its end'
    assert start(d, 'far', **env).wait(timeout=120) == 0
    assert contents(d/'far') == contents(d/'near') and os.listdir(short_tmp) == [], 'something was left behind'


CLUSTER = '''
import os, random, signal, sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=0, include_dashboard=False))
for _ in range(2): cluster.add_node(num_cpus=1)
print(cluster.address, flush=True)
for line in sys.stdin:
    machine = sorted(cluster.worker_nodes, key=lambda o: o.unique_id)[int(line)]
    os.kill(machine.all_processes['raylet'][0].process.pid, signal.SIGKILL)
    cluster.remove_node(machine, allow_graceful=False)
    cluster.add_node(num_cpus=1)
    print('killed', flush=True)
cluster.shutdown()
'''


@contextmanager
def cluster():
    "The process that holds a cluster of three machines, and the cluster's address"
    env = {**os.environ, 'RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO': '0'}
    holder = subprocess.Popen([sys.executable, '-c', CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)
    members = []
    try:
        line = holder.stdout.readline()
        while line and ':' not in line: line = holder.stdout.readline()
        yield holder, line.strip()
        members = family(holder.pid)
        holder.stdin.close()
        holder.wait(timeout=60)
    finally:
        for pid in [*members, *family(holder.pid)]: kill(pid)


def working(pid):
    "The processes of a cluster that do a task"
    def does(p):
        try: return b'ray_task' in Path(f'/proc/{p}/cmdline').read_bytes()
        except OSError: return False
    return [p for p in family(pid) if does(p)]


@pytest.mark.slow
@pytest.mark.parametrize('seed, runs', [(4, 5), (5, 4)])
def test_a_cluster_loses_workers_and_machines_and_the_bytes_are_the_same(tmp_path, seed, runs):
    "36 times kill -9 at a random moment, 4 in each run: of a process that does a task, and once of a whole machine"
    pytest.importorskip('ray')
    d, draw = slow_project(tmp_path, 4000), random.Random(seed)
    with cluster() as (holder, address):
        for i in range(runs):
            run = start(d, f'far{i}', RAY_ADDRESS=address)
            until(lambda r=run: working(holder.pid) or r.poll() is not None, 120)
            machine = draw.randrange(4)
            for k in range(4):
                time.sleep(draw.uniform(0, 0.8))
                if k == machine:
                    holder.stdin.write(f'{draw.randrange(2)}\n')
                    holder.stdin.flush()
                    assert holder.stdout.readline() == 'killed\n'
                elif victims := working(holder.pid): kill(draw.choice(victims))
            _, said = run.communicate(timeout=200)
            assert run.returncode == 0, said
            assert contents(d/f'far{i}') == contents(d/'near')
            print('whole after 4 kills', flush=True)


def test_a_cluster_that_is_not_there_is_one_error(tmp_path):
    pytest.importorskip('ray')
    d = project(tmp_path, 50)
    run = preprocess(d, '--engine', 'ray', RAY_ADDRESS='127.0.0.1:1')
    assert run.returncode == 2 and 'Traceback' not in run.stderr, run.stderr
    assert 'the Ray cluster at 127.0.0.1:1 does not answer' in run.stderr
    assert not (d/'last_run_prepared').exists()
