"Rows encoded on a Ray cluster: the same bytes, also where a worker dies on the way."
import builtins

import pytest
from conftest import make_tokenizer
from test_workers import contents, preprocess, project, sources

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
    assert list((d/'out').iterdir()) == []


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
