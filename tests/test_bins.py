"Planned bins against the bins that training reads."
import json

import numpy as np
import pytest
from conftest import make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from segtune.data.bins import plan_bins, row_lengths, stored_bins
from segtune.data.findings import prepare_and_lint
from segtune.data.formats import find_format
from segtune.data.shards import Source
from segtune.data.sources import find_rows
from segtune.project import Project
from segtune.training.batches import RowCounts, RowOrder, count_rows
from segtune.training.orders import BinOrder

rows = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 3)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(rows=rows, shuffled=st.booleans(), seed=st.integers(0, 99))
def test_training_reads_as_many_bins_of_the_same_sizes(rows, shuffled, seed):
    lengths, trained = (np.array(o) for o in zip(*rows))
    plan = plan_bins(range(len(rows)), lengths, trained, 64, shuffled)
    order = BinOrder(RowCounts(lengths, trained, '', lengths, lengths), 64, RowOrder(len(rows), seed, shuffled=shuffled))
    for epoch in range(2):
        read = order.bins(epoch)
        assert sorted(sum(lengths[list(b)]) for b in read) == sorted(plan.filled.tolist())
        if not shuffled: assert [list(b) for b in read] == plan.bins
    assert sorted(i for b in plan.bins for i in b) == np.flatnonzero(trained).tolist()
    assert all(n <= 64 for n in plan.filled)


@pytest.fixture
def prepared(tmp_path):
    lines = [dict(segments=[dict(text='word '*(i % 17+1), label=False), dict(text=' end'*(i % 3), label=True)]) for i in range(200)]
    (tmp_path/'data.jsonl').write_text(''.join(json.dumps(o)+'\n' for o in lines))
    tok = make_tokenizer('gpt2')
    return prepare_and_lint([Source(r, find_format('segments', tok)) for r in find_rows(str(tmp_path/'data.jsonl'))], tok, tmp_path/'out')


def test_lengths_are_those_that_training_counts(prepared):
    from datasets import load_from_disk
    counts = count_rows(load_from_disk(str(prepared.path)))
    lengths, trained = row_lengths(prepared.path)
    assert np.array_equal(lengths, counts.lengths) and np.array_equal(trained, counts.trained)


def test_bins_are_kept_beside_the_data_and_found_again(prepared):
    plan = stored_bins(prepared.path, list(range(150)), 64)
    (file,) = (prepared.path/'.segtune').glob('bins-*.arrow')
    assert stored_bins(prepared.path, list(range(150)), 64).bins == plan.bins
    file.write_bytes(b'damaged')
    assert stored_bins(prepared.path, list(range(150)), 64).bins == plan.bins
    stored_bins(prepared.path, list(range(150)), 128)
    assert len(list((prepared.path/'.segtune').glob('bins-*'))) == 2


def test_bins_that_were_cut_are_planned_again(prepared):
    "at any byte: an Arrow stream that ends between two parts is read without an error, with fewer rows"
    plan = stored_bins(prepared.path, list(range(200)), 64)
    (file,) = (prepared.path/'.segtune').glob('bins-*.arrow')
    whole = file.read_bytes()
    for n in range(0, len(whole), 8):
        file.write_bytes(whole[:n])
        assert stored_bins(prepared.path, list(range(200)), 64).bins == plan.bins, n


def test_bins_need_no_place_to_be_kept(prepared, monkeypatch):
    "as on a read-only disk"
    def refuse(*_): raise OSError(30, 'Read-only file system')
    monkeypatch.setattr('segtune.data.bins.write_bytes', refuse)
    assert len(stored_bins(prepared.path, list(range(200)), 64).bins) > 1
    assert not [*(prepared.path/'.segtune').glob('bins-*')]


def test_a_config_that_packs_has_bins_of_the_rows_it_trains(tmp_path):
    from segtune.models import bundled
    lines = [dict(instruction=f'{i}?', output='yes '*(i % 9+1)) for i in range(60)]
    (tmp_path/'data.jsonl').write_text(''.join(json.dumps(o)+'\n' for o in lines))
    text = f'base_model: {bundled("gpt2")}\ndatasets: [{{path: data.jsonl, type: alpaca}}]\nsequence_len: 256\nval_set_size: 10\n'
    (tmp_path/'config.yml').write_text(text)
    assert Project.open(tmp_path/'config.yml').bins is None
    plan = Project.open(tmp_path/'config.yml', ['sample_packing=true', 'micro_batch_size=2']).bins
    assert plan.capacity == 512 and sum(map(len, plan.bins)) == 50
    assert 'packing: ' in plan.lines()[0] and f'{plan.efficiency:.1%} filled' in plan.lines()[0]


@pytest.mark.parametrize('more', [[], ['micro_batch_size=2'], ['val_set_size=7', 'data_seed=5']])
def test_bins_by_common_beginnings_are_those_that_training_reads(tmp_path, more):
    "`group_by_prefix` decides the order, from which one bin after the other is filled"
    from segtune.models import bundled
    from segtune.training.batches import count_rows, row_order
    from segtune.training.orders import step_order
    lines = [dict(instruction=f'A long common beginning number {i % 5}, '*5+f'{i}?', output='yes '*(i % 9+1)) for i in range(60)]
    (tmp_path/'data.jsonl').write_text(''.join(json.dumps(o)+'\n' for o in lines))
    text = f'base_model: {bundled("gpt2")}\ndatasets: [{{path: data.jsonl, type: alpaca}}]\nsequence_len: 256\nsample_packing: true\ngroup_by_prefix: true\n'
    (tmp_path/'config.yml').write_text(text)
    project = Project.open(tmp_path/'config.yml', more)
    rows, _ = project.rows()
    counts = count_rows(rows)
    order = step_order(row_order(counts, o=project.cfg), rows, counts, o=project.cfg)
    keep = project.split[0]
    assert [[keep[i] for i in b] for b in order.fixed] == project.bins.bins and len(project.bins.bins) > 3
    assert project.bins.lines()[0].endswith('the same in each epoch')
    assert Project.open(tmp_path/'config.yml', more).bins.bins == project.bins.bins
    (file,) = (project.prepared.path/'.segtune').glob('bins-*')
    assert Project.open(tmp_path/'config.yml', [*more, 'seed=9']).bins.bins != project.bins.bins or 'data_seed=5' in more
    assert file.exists()


def test_the_report_shows_the_bins(tmp_path):
    from segtune.models import bundled
    lines = [dict(instruction=f'{i}?', output='yes '*(i % 9+1)) for i in range(60)]
    (tmp_path/'data.jsonl').write_text(''.join(json.dumps(o)+'\n' for o in lines))
    (tmp_path/'config.yml').write_text(f'base_model: {bundled("gpt2")}\ndatasets: [{{path: data.jsonl, type: alpaca}}]\nsequence_len: 256\n')
    packed = Project.open(tmp_path/'config.yml', ['sample_packing=true'])
    page = packed.report(tmp_path/'packed.html').read_text()
    for what, n in packed.bins.cards(): assert f'<b>{n}</b><span>{what}</span>' in page
    assert 'bins of' not in Project.open(tmp_path/'config.yml').report(tmp_path/'plain.html').read_text()
