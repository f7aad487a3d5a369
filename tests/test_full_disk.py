"A disk that is full, a file that cannot be read: one sentence, nothing half-made, nothing left behind."
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_workers import contents, preprocess, project, segtune


def limited(d, n, *command):
    "Run a command that can write no file of over n bytes"
    def limit(): resource.setrlimit(resource.RLIMIT_FSIZE, (n, n))
    env = {**os.environ, 'PYTHONDONTWRITEBYTECODE': '1'}
    return subprocess.run([*segtune, *command], cwd=d, capture_output=True, text=True, preexec_fn=limit, env=env)


def left(d): return sorted(os.listdir(d)) if Path(d).exists() else []


def refused(run, where):
    "One sentence that says what cannot be written and what to do"
    assert run.returncode in (1, 2) and 'Traceback' not in run.stderr, run.stderr
    last = run.stderr.strip().splitlines()[-1]
    assert where in last and ('File too large' in last or 'No space left' in last), run.stderr


@pytest.mark.parametrize('workers', ['1', '2'])
def test_no_writer_of_prepared_data_leaves_half_of_it(tmp_path, workers):
    "each limit stops another writer: the lineage, the rows, the descriptions, the manifest"
    d = project(tmp_path, 1500)
    assert preprocess(d, '--workers', '1', '--set', 'dataset_prepared_path=whole').returncode == 0
    whole = contents(d/'whole')
    sizes = sorted({len(o) for o in whole.values()})
    stopped = set()
    for n in (100, *(o-1 for o in sizes if o > 100)):
        shutil.rmtree(d/'last_run_prepared', ignore_errors=True)
        run = limited(d, n, 'preprocess', 'config.yml', '--workers', workers)
        if run.returncode == 0: # what could not be written is only of use to be quicker the next time
            got = contents(d/'last_run_prepared')
            assert got.items() <= whole.items() and all('lint' in o for o in whole.keys()-got.keys())
            continue
        refused(run, 'last_run_prepared')
        assert left(d/'last_run_prepared') == []
        stopped.add(n)
    assert len(stopped) >= 4
    assert preprocess(d, '--workers', workers).returncode == 0
    assert contents(d/'last_run_prepared') == whole


@pytest.mark.parametrize('command, file', [(('inspect', 'config.yml', '--html', 'page.html'), 'page.html'),
                                           (('eject', 'config.yml', '-o', 'ejected.jsonl'), 'ejected.jsonl')])
def test_what_a_command_writes_is_there_entirely_or_not_at_all(tmp_path, command, file):
    d = project(tmp_path, 300)
    assert preprocess(d).returncode == 0
    before = left(d)
    run = limited(d, 5000, *command)
    refused(run, file)
    assert left(d) == before
    assert limited(d, 10**9, *command).returncode == 0 and (d/file).exists()
    old = (d/file).read_bytes()
    if file.endswith('.html'): # an older page stays as it was
        refused(limited(d, 5000, *command), file)
        assert (d/file).read_bytes() == old


def test_run_json_is_there_entirely_or_not_at_all(tmp_path):
    code = '''
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
from segtune.training.checkpoints import write_run
from segtune.segments import RunError
try: write_run('run', dict(model='m'*1000))
except RunError as e: print(e)
'''
    out = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
    assert 'run/run.json' in out.stdout and 'cannot be written (File too large)' in out.stdout, out.stderr
    assert left(tmp_path/'run') == []


@pytest.mark.parametrize('workers', ['1', '2'])
def test_a_file_that_cannot_be_read_is_one_error(tmp_path, workers):
    "a directory in its place, since root may read any file"
    d = project(tmp_path, 50)
    (d/'more').mkdir()
    (d/'more'/'a.jsonl').symlink_to(d/'nowhere.jsonl')
    (d/'config.yml').write_text((d/'config.yml').read_text().replace('path: data.jsonl', 'path: more/a.jsonl'))
    run = preprocess(d, '--workers', workers)
    assert run.returncode == 2 and 'Traceback' not in run.stderr and 'a.jsonl' in run.stderr
    assert left(d/'last_run_prepared') == []


@pytest.mark.skipif(os.getuid() != 0, reason='another user can only be tried by root')
def test_a_file_of_somebody_else_is_one_error(tmp_path):
    for d in (tmp_path, *tmp_path.parents[:3]): os.chmod(d, 0o755)
    d = project(tmp_path, 50)
    os.chmod(d, 0o777)
    os.chmod(d/'data.jsonl', 0)
    code = 'import os; os.setgid(65534); os.setuid(65534); from segtune.cli import main; main()'
    run = subprocess.run([sys.executable, '-c', code, 'preprocess', 'config.yml'], cwd=d, capture_output=True, text=True)
    if 'ModuleNotFoundError' in run.stderr: pytest.skip('another user cannot read the environment')
    assert run.returncode == 2 and 'Traceback' not in run.stderr, run.stderr
    assert 'data.jsonl: cannot read the file (Permission denied). Check `path`.' in run.stderr
    assert left(d/'last_run_prepared') == []


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason='only root can mount a small disk')
def test_a_full_disk_under_ray_is_one_error(tmp_path):
    pytest.importorskip('ray')
    d, disk = project(tmp_path, 3000), tmp_path/'disk'
    disk.mkdir()
    if subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', disk], capture_output=True).returncode: pytest.skip('no mounts here')
    try:
        for how in (['--workers', '2'], ['--engine', 'ray']):
            run = preprocess(d, *how, '--set', f'dataset_prepared_path={disk}')
            refused(run, str(disk))
            assert left(disk) == []
    finally: subprocess.run(['umount', disk], check=True)
    assert not (d/'last_run_prepared').exists()
