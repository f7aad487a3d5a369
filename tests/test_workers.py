"Several processes: the same bytes, one error, nobody left behind."
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import make_tokenizer

from segtune.data.findings import prepare_and_lint
from segtune.data.formats import ChangedFormat, RowFormat, find_format
from segtune.data.lineage import read_batches
from segtune.data.shards import Source
from segtune.data.sources import Rows, find_rows
from segtune.data.workers import Worker, packed, pooled
from segtune.formats.base import FormatContext, note
from segtune.models import bundled
from segtune.segments import ConfigError, DataError, Segment

segtune = [sys.executable, '-c', 'from segtune.cli import main; main()']
config = '''base_model: {tok}
datasets: [{{path: data.jsonl, type: {type}}}]
'''
FORMATS = '''import os, signal, time
from pathlib import Path
from wording import question

def plain(row): return [(question(row), False), (row['a'], True)]

def deadly(row):
    if 'DEADLY' in os.environ and row['a']==' 2500': os.kill(os.getpid(), signal.SIGKILL)
    return plain(row)

def wrong(row): return [(question(row), False), (row['b'] if row['a'] in (' 1500', ' 2900') else row['a'], True)]

def slow(row):
    if row['a']==' 2500':
        Path('began').write_text(str(os.getpid()))
        time.sleep(600)
    return plain(row)
'''


def project(tmp_path, n=3000, type='my_formats.plain', **more):
    "A directory with data, a format of the user's that imports another module, and a config"
    rows = [json.dumps(dict(q=f'Question {i}?', a=f' {i}')) for i in range(n)]
    (tmp_path/'data.jsonl').write_text('\n'.join(rows)+'\n')
    (tmp_path/'my_formats.py').write_text(FORMATS)
    (tmp_path/'wording.py').write_text('def question(row): return f"<s>{row[\'q\']}"\n')
    text = config.format(tok=bundled('gpt2'), type=type)
    (tmp_path/'config.yml').write_text(text+''.join(f'{k}: {json.dumps(v)}\n' for k, v in more.items()))
    return tmp_path


def preprocess(d, *options, **env):
    how = dict(cwd=d, capture_output=True, text=True, env={**os.environ, **env})
    return subprocess.run([*segtune, 'preprocess', 'config.yml', *options], **how)


def contents(d):
    "Every file below a directory"
    return {f.relative_to(d).as_posix(): f.read_bytes() for f in Path(d).rglob('*') if f.is_file()}


def children(pid):
    "Processes that a process started"
    out = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try: fields = stat.read_text().rpartition(')')[2].split()
        except OSError: continue
        if int(fields[1]) == pid: out.append(int(stat.parent.name))
    return out


def alive(pid):
    try: return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError: return False


def until(done, seconds=60):
    end = time.time()+seconds
    while not (found := done()):
        assert time.time() < end, 'nothing happened'
        time.sleep(0.05)
    return found


def sources(d, tok, type, **options):
    return [Source(r, find_format(type, tok, sequence_len=64, **options)) for r in find_rows(str(d/'data.jsonl'))]


def shout(row): return [(row['q'].upper(), False), (row['a'], True)]


CASES = {
    'alpaca': (dict(type='alpaca', boundary='split'), lambda i: dict(instruction=f'{i}?', output='yes '*(i % 90))),
    'chat template': (dict(type='chat_template', chat_template='chatml'),
                      lambda i: dict(messages=[dict(role='user', content=f'{i}?'), dict(role='assistant', content=f'{i}.')])),
    'several rows of one': (dict(type='completion'), lambda i: dict(text=f'word {i} '*(i % 40+1))),
    'a function by value': (dict(type=lambda row: [(row['q'], False), (row['a'].strip(), True)]), lambda i: dict(q=f'{i}?', a=f' {i}')),
}


dropping = dict(on_bad='skip', dataset_exact_deduplication=True)


@pytest.mark.parametrize('case, options', [*((o, {}) for o in CASES), ('several rows of one', dropping)])
def test_two_workers_write_the_bytes_of_one(tmp_path, case, options):
    "data, lineage, counts and lint; wrong rows and repeated ones among them"
    how, row = CASES[case]
    rows = [row(i % 900) for i in range(1500)]
    if options: rows[7] = rows[1299] = {'odd': 1}
    (tmp_path/'data.jsonl').write_text(''.join(json.dumps(o)+'\n' for o in rows))
    tok = make_tokenizer('mistral')
    def run(n):
        p = prepare_and_lint(sources(tmp_path, tok, **how), tok, tmp_path/f'out{n}', sequence_len=64, dataset_num_proc=n, **options)
        return contents(tmp_path/f'out{n}'), p.count, p.lint
    one, two = run(1), run(2)
    assert one == two and one[1].read == 1500


@pytest.mark.slow
def test_any_number_of_workers_writes_the_same_bytes(tmp_path):
    d = project(tmp_path, 9500)
    for n in (1, 2, 8): assert preprocess(d, '--workers', str(n), '--set', f'dataset_prepared_path=out{n}').returncode == 0
    assert contents(d/'out1') == contents(d/'out2') == contents(d/'out8')


def test_the_config_key_and_its_older_name_ask_for_workers(tmp_path):
    from segtune.project import Project
    d = project(tmp_path, 1500, dataset_processes=3)
    asked = Project.open(d/'config.yml')
    assert asked.cfg.dataset_num_proc == 3 and not any('dataset_processes' in o for o in asked.notes)
    (d/'config.yml').write_text((d/'config.yml').read_text().replace('dataset_processes', 'dataset_num_proc'))
    assert preprocess(d).returncode == 0
    again = preprocess(d, '--workers', '1')
    assert again.returncode == 0 and 'found ready' in again.stdout, 'the number of workers is no part of the key'


def test_lint_alone_is_done_by_workers_too(tmp_path):
    d, tok = project(tmp_path, 2500), make_tokenizer('gpt2')
    def run(out, **how): return prepare_and_lint(sources(d, tok, shout), tok, d/out, **how)
    run('a'), run('b')
    one, two = run('a', lint_silence=['no-eos']), run('b', lint_silence=['no-eos'], dataset_num_proc=2)
    assert one.from_cache and two.from_cache and one.lint == two.lint and contents(d/'a') == contents(d/'b')


def test_wrong_rows_are_named_as_by_one_process(tmp_path):
    "all of them in one error, with the user's own traceback"
    d = project(tmp_path, type='my_formats.wrong')
    one, two = (preprocess(d, '--workers', n) for n in '12')
    assert (one.returncode, two.returncode) == (2, 2) and one.stderr == two.stderr
    for part in ('data.jsonl:1501', 'data.jsonl:2901', '2 rows of data.jsonl are wrong', "KeyError: 'b'", 'my_formats.py'): assert part in two.stderr
    assert not (d/'last_run_prepared').exists()


def test_a_mistake_of_the_file_waits_for_the_rows_before_it(tmp_path):
    d = project(tmp_path)
    rows = (d/'data.jsonl').read_text().splitlines()
    rows[5] = '{"q": 1}'
    (d/'data.jsonl').write_text('\n'.join(rows)+'\n{"a":\n')
    one, two = (preprocess(d, '--workers', n) for n in '12')
    assert one.returncode == two.returncode == 2 and one.stderr == two.stderr and 'data.jsonl:6' in two.stderr


def test_a_worker_that_is_killed_is_one_error_and_nothing_stays(tmp_path):
    d = project(tmp_path, type='my_formats.deadly')
    run = preprocess(d, '--workers', '2', DEADLY='1')
    assert run.returncode == 1 and 'Traceback' not in run.stderr
    assert 'a worker process: was killed (SIGKILL)' in run.stderr and 'dataset_num_proc' in run.stderr
    assert not (d/'last_run_prepared').exists()
    assert preprocess(d, '--workers', '2').returncode == 0
    assert preprocess(d, '--set', 'dataset_prepared_path=alone', '--workers', '1').returncode == 0
    assert contents(d/'last_run_prepared') == contents(d/'alone')


@pytest.mark.parametrize('how', [signal.SIGINT, signal.SIGKILL], ids=['Ctrl-C', 'kill -9'])
def test_workers_end_with_the_run(tmp_path, how):
    d = project(tmp_path, type='my_formats.slow')
    run = subprocess.Popen([*segtune, 'preprocess', 'config.yml', '--workers', '2'], cwd=d, stderr=subprocess.PIPE, text=True,
                           preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    until((d/'began').exists)
    pids = children(run.pid)
    assert len(pids) == 2
    run.send_signal(how)
    _, said = run.communicate(timeout=60)
    if how == signal.SIGINT:
        assert run.returncode == 130 and 'interrupted' in said.splitlines() and 'Traceback' not in said
        assert not (d/'last_run_prepared').exists() and not any(map(alive, pids))
        return
    until(lambda: not any(map(alive, pids)))


def killed_and_run_again(d, times, seed):
    "kill -9 of the run or of one of its workers at random moments; then the bytes of a run that nobody disturbed"
    draw = random.Random(seed)
    began = time.time()
    assert preprocess(d, '--workers', '2', '--set', 'dataset_prepared_path=whole').returncode == 0
    took, (key,) = time.time()-began, os.listdir(d/'whole')
    done = 0
    for _ in range(times):
        run = subprocess.Popen([*segtune, 'preprocess', 'config.yml', '--workers', '2', '--set', 'dataset_prepared_path=killed'],
                               cwd=d, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(0.2, 1)*took)
        victims = [run.pid, *children(run.pid)]
        try: os.kill(draw.choice(victims), signal.SIGKILL)
        except ProcessLookupError: pass
        run.wait()
        until(lambda gone=victims: not any(map(alive, gone)))
        seen = {o for o in os.listdir(d/'killed') if not o.startswith('.')} if (d/'killed').exists() else set()
        assert seen <= {key}
        if seen:
            assert contents(d/'killed'/key) == contents(d/'whole'/key)
            shutil.rmtree(d/'killed'/key)
            done += 1
    assert done < times, 'no run was killed before its end'
    assert preprocess(d, '--workers', '2', '--set', 'dataset_prepared_path=killed').returncode == 0
    assert contents(d/'killed') == contents(d/'whole'), 'something was left behind'


def test_kills_at_random_moments_leave_nothing_half_made(tmp_path): killed_and_run_again(project(tmp_path, 4000), 3, seed=1)


@pytest.mark.slow
def test_fifty_kills_at_random_moments_leave_nothing_half_made(tmp_path): killed_and_run_again(project(tmp_path, 6000), 50, seed=2)


SCRIPT = '''
import segtune.data.prepare as prepare
from segtune.data.formats import RowFormat, find_format
from segtune.data.shards import Source
from segtune.data.sources import find_rows
from segtune.models import bundled
from segtune.tokenizer import load_tokenizer

ending = '.'
def own(row): return [(row['q'], False), (row['a']+ending, True)]

tok = load_tokenizer(bundled('gpt2'))
print('started')
p = prepare.prepare([Source(r, find_format(own, tok)) for r in find_rows('data.jsonl')], tok, dataset_num_proc=2)
print(p.count.rows)
'''


def test_a_script_needs_no_guard_and_its_functions_travel(tmp_path):
    d = project(tmp_path, 1200)
    (d/'script.py').write_text(SCRIPT)
    run = subprocess.run([sys.executable, 'script.py'], cwd=d, capture_output=True, text=True)
    assert run.stdout.split() == ['started', '1200'], run.stderr


SOURCES = {
    'lines': dict(path='rows.jsonl'), 'a part of them': dict(path='rows.jsonl', split='train[30%:90%]', skip=5),
    'some of them at random': dict(path='rows.jsonl', max_rows=1700), 'a shard of a part': dict(path='rows.jsonl', skip=100, shards=2, shards_idx=1),
    'several times': dict(path='rows.jsonl', max_rows=900, repeat=3), 'row groups': dict(path='rows.parquet'), 'a group of all': dict(path='whole.parquet', max_rows=1500),
    'many files': dict(path='many/*.jsonl'), 'files of several kinds': dict(path='mixed'), 'a list': dict(path='list.json'), 'compressed': dict(path='rows.jsonl.gz'),
}


@pytest.fixture(scope='module')
def kinds_of_files(tmp_path_factory):
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq
    d = tmp_path_factory.mktemp('kinds')
    rows = [dict(text=f'row {i} '+'word '*(i % 7)) for i in range(2600)]
    text = ''.join(json.dumps(o)+'\n'*(1+(i % 9 == 0)) for i, o in enumerate(rows))
    (d/'rows.jsonl').write_bytes(b'\xef\xbb\xbf'+text.encode())
    with gzip.open(d/'rows.jsonl.gz', 'wt') as f: f.write(text)
    (d/'list.json').write_text('[\n'+',\n'.join(map(json.dumps, rows))+'\n]')
    pq.write_table(pa.Table.from_pylist(rows), d/'rows.parquet', row_group_size=700)
    pq.write_table(pa.Table.from_pylist(rows), d/'whole.parquet')
    for k in ('many', 'mixed'): (d/k).mkdir()
    for i in range(7): (d/'many'/f'{i}.jsonl').write_text(''.join(json.dumps(o)+'\n' for o in rows[i*300:i*300+290]))
    shutil.copy(d/'rows.parquet', d/'mixed'/'b.parquet')
    (d/'mixed'/'a.csv').write_text('text\n'+'"a cell\nof two lines"\n'*1300)
    (d/'mixed'/'c.jsonl').write_text(''.join(json.dumps(o)+'\n' for o in rows[:500]))
    return d


@pytest.mark.parametrize('case', SOURCES)
def test_rows_that_workers_read_are_those_of_one_process(tmp_path, kinds_of_files, case):
    from segtune.data.jobs import encoders_of, read_shards
    from segtune.data.tasks import read_task, shard_tasks
    tok, how = make_tokenizer('gpt2'), dict(SOURCES[case])
    some = [Source(r, find_format('completion', tok)) for r in find_rows(str(kinds_of_files/how.pop('path')), **how)]
    encoders = encoders_of(some, tok)
    tasks = list(shard_tasks(some, encoders))
    assert [read_task(t).items for t in tasks] == list(read_shards(some, encoders)) and len(tasks) > 1
    assert all(len(o) == 2 for t in tasks for o in t.items) == (case not in ('files of several kinds', 'a list', 'compressed'))


def test_this_process_reads_no_rows_that_workers_can_read(tmp_path, monkeypatch):
    import segtune.data.parts as parts
    d, tok = project(tmp_path, 2500), make_tokenizer('gpt2')
    def refuse(*args): raise AssertionError('a row was read here')
    def run(out, **how): return prepare_and_lint(sources(d, tok, shout), tok, d/out, **how)
    run('one')
    some = sources(d, tok, shout)
    some[0].rows.read.read = refuse
    monkeypatch.setattr(parts, 'read_lines', refuse)
    prepare_and_lint(some, tok, d/'two', dataset_num_proc=2)
    assert contents(d/'one') == contents(d/'two')


MISTAKES = {'an object over several lines': '{\n"q": 1\n}\n', 'no UTF-8': b'{"q": "\xff", "a": "x"}\n', 'no JSON': '{"q": \n', 'a number': '7\n', 'null': 'null\n'}


@pytest.mark.parametrize('what', MISTAKES)
@pytest.mark.parametrize('on_bad', ['error', 'skip'])
def test_a_mistake_far_inside_a_file_is_told_as_by_one_process(tmp_path, what, on_bad):
    d, tok = project(tmp_path, 2100), make_tokenizer('gpt2')
    lines = (d/'data.jsonl').read_bytes().splitlines(True)
    wrong = MISTAKES[what]
    lines[1650:1650] = [wrong if isinstance(wrong, bytes) else wrong.encode(), b'\n']
    (d/'data.jsonl').write_bytes(b''.join(lines))
    def run(n):
        try: return prepare_and_lint(sources(d, tok, shout), tok, d/f'out{n}', on_bad=on_bad, dataset_num_proc=n).count
        except DataError as e: return str(e)
    one, two = run(1), run(2)
    assert one == two and ('1651' in str(one) or '1651' in str(one.listed))
    assert contents(d/'out1') == contents(d/'out2')


def test_a_file_that_is_another_one_where_it_is_read_is_not_read(tmp_path):
    "a machine that has an older copy, or none, says so, and the rows are sent to it"
    from segtune.data.jobs import encoders_of
    from segtune.data.parts import UnseenFile
    from segtune.data.tasks import read_task, shard_tasks
    d, tok = project(tmp_path, 1200), make_tokenizer('gpt2')
    some = sources(d, tok, shout)
    first, *_ = shard_tasks(some, encoders_of(some, tok))
    rows = read_task(first)
    with open(d/'data.jsonl', 'a') as f: f.write('{}\n')
    with pytest.raises(UnseenFile, match='another file'): read_task(first)
    (d/'data.jsonl').unlink()
    with pytest.raises(UnseenFile, match='No such file'): read_task(first)
    assert read_task(rows) == rows


@pytest.fixture
def server(tmp_path):
    "A web server that gives parts of files, and can be told not to; what it was asked for"
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread
    asked = []
    class Answer(BaseHTTPRequestHandler):
        parts = True
        def do_GET(self):
            data = (tmp_path/self.path[1:]).read_bytes()
            asked.append(self.headers.get('Range'))
            whole, size = not (self.parts and asked[-1]), len(data)
            first, last = (0, size-1) if whole else map(int, asked[-1].removeprefix('bytes=').split('-'))
            self.send_response(200 if whole else 206)
            self.send_header('ETag', f'"{hash(data)}"')
            self.send_header('Content-Length', str(last+1-first))
            if not whole: self.send_header('Content-Range', f'bytes {first}-{last}/{size}')
            self.end_headers()
            self.wfile.write(data[first:last+1])
        def log_message(self, *args): pass
    at = ThreadingHTTPServer(('127.0.0.1', 0), Answer)
    Thread(target=at.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{at.server_port}', Answer, asked
    at.shutdown()
    at.server_close()


@pytest.mark.parametrize('file', ['rows.jsonl', 'rows.parquet'])
@pytest.mark.parametrize('store', ['web', 'memory'])
def test_a_machine_without_the_copy_reads_from_the_address(tmp_path, kinds_of_files, server, file, store):
    "the same rows; a file that changed there, or that is not given in parts, is refused, and its rows are sent"
    import fsspec

    from segtune.data.jobs import encoders_of, read_shards
    from segtune.data.parts import UnseenFile
    from segtune.data.tasks import read_task, shard_tasks
    shutil.copy(kinds_of_files/file, tmp_path/file)
    (address, answer, asked), memory = server, fsspec.filesystem('memory')
    memory.pipe(f'/store/{file}', (tmp_path/file).read_bytes())
    tok, url = make_tokenizer('gpt2'), f'{address}/{file}' if store == 'web' else f'memory://store/{file}'
    some = [Source(r, find_format('completion', tok)) for r in find_rows(url, max_rows=2400)]
    encoders = encoders_of(some, tok)
    tasks, rows = list(shard_tasks(some, encoders)), list(read_shards(some, encoders))
    assert all(len(o) == 2 for t in tasks for o in t.items)
    (copy,) = some[0].rows.files
    copy.unlink()
    asked.clear()
    assert [read_task(t).items for t in tasks] == rows
    if store == 'web':
        assert asked and all(asked), 'only parts are asked for'
        answer.parts = False
        with pytest.raises(UnseenFile): read_task(tasks[0])
        answer.parts = True
    changed = (tmp_path/file).read_bytes().replace(b'word', b'WORD')
    (tmp_path/file).write_bytes(changed)
    memory.pipe(f'/store/{file}', changed)
    with pytest.raises(UnseenFile): read_task(tasks[-1])


def test_what_a_function_prints_harms_nothing():
    def talk(i):
        print('something')
        os.system('echo more')
        return i
    assert list(pooled(packed(talk), range(3), 1)) == [0, 1, 2]


def test_errors_come_back_as_they_are():
    def fail(i):
        if i == 0: raise DataError('no.', source='a.jsonl', row=3)
        if i == 1: raise ConfigError('neither.', field='type')
        if i == 2: raise OSError(28, 'No space left', 'some/file')
        return 1/0
    job = packed(fail)
    for i, kind, words in [(0, DataError, 'a.jsonl:3: no.'), (1, ConfigError, 'type: neither.'), (2, OSError, 'some/file'), (3, RuntimeError, 'ZeroDivisionError')]:
        with pytest.raises(kind, match=words): list(pooled(job, [i], 1))


@pytest.fixture
def mended(tmp_path, monkeypatch):
    "a module of the user's, one of whose values was changed after it was read"
    (tmp_path/'my_endings.py').write_text("END = '.'\ndef plain(row): return [(row['q'], False), (row['a']+END, True)]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import my_endings
    my_endings.END = '!'
    yield my_endings
    del sys.modules['my_endings']


@pytest.mark.parametrize('named', [True, False])
def test_a_function_that_is_another_one_in_a_worker_is_used_here(tmp_path, mended, named):
    "a worker would read its module anew, and keep the rows of the file under the key of what is in memory"
    d, tok = project(tmp_path, 1500), make_tokenizer('gpt2')
    def run(n): return prepare_and_lint(sources(d, tok, 'my_endings.plain' if named else mended.plain), tok, d/f'out{n}', dataset_num_proc=n)
    one, two = run(1), run(2)
    assert contents(one.path) == contents(two.path)
    end = sys.modules['my_endings'].END if named else '!' # by its name it may have been read anew, here as well
    assert tok.decode(next(read_batches(two.path)).row(0).ids).endswith(end)


def test_a_file_that_is_edited_between_two_workers_ends_in_a_sentence(tmp_path):
    "the second one makes a job of another function than the first"
    d, tok = project(tmp_path, 100), make_tokenizer('gpt2')
    fmt = find_format('my_formats.plain', tok, beside=str(d))
    assert pickle.loads(pickle.dumps(fmt)).identity == fmt.identity
    code = (d/'my_formats.py').read_text()
    (d/'my_formats.py').write_text(code.replace("(row['a'], True)", "(row['a']+'.', True)"))
    with pytest.raises(ChangedFormat, match='is another function'): pickle.loads(pickle.dumps(fmt))


def test_a_job_that_cannot_be_sent_is_done_here(tmp_path):
    d, tok = project(tmp_path, 50), make_tokenizer('gpt2')
    lines = iter(lambda: 'x', None)
    def stuck(row): return [(next(lines), False), (row['a'], True)]
    generator = (o for o in ('y',)*1000)
    def unsendable(row): return [(next(generator), False), (row['a'], True)]
    p = prepare_and_lint(sources(d, tok, unsendable), tok, d/'out', dataset_num_proc=2)
    assert p.count.rows == 50


def _called_at_once(worker, tasks, threads=4): # what comes of each call: its result, or the type of its error
    def call(task):
        try: return worker(task)
        except Exception as e: return type(e)
    with ThreadPoolExecutor(threads) as pool: return list(pool.map(call, tasks, timeout=60))


def test_calls_of_several_threads_get_their_own_results():
    "whoever reads a result, and however large the tasks and the results are"
    worker = Worker(packed(lambda o: (len(o), o)))
    tasks = [b'x'*n for n in (0, 10, 3_000_000, 70_000)*10]
    assert _called_at_once(worker, tasks) == [(len(o), o) for o in tasks]
    worker.stop()


def test_a_worker_that_dies_ends_every_call_that_waits_for_it():
    def job(i):
        if i == 5: os.kill(os.getpid(), signal.SIGKILL)
        return i
    worker = Worker(packed(job))
    found = _called_at_once(worker, range(12))
    assert set(found[5:]) == {ChildProcessError} and all(o in (i, ChildProcessError) for i, o in enumerate(found))
    worker.stop()


def test_an_error_stands_for_its_own_task_only():
    def job(i):
        if i % 3 == 1: raise DataError(f'task {i} is wrong')
        if i % 3 == 2: raise KeyError(i)
        return i
    worker = Worker(packed(job))
    assert _called_at_once(worker, range(9)) == [0, DataError, RuntimeError]+[3, DataError, RuntimeError]+[6, DataError, RuntimeError]
    worker.stop()


def test_rows_are_read_only_a_few_shards_ahead(tmp_path):
    "memory is bounded by the shards under way, whatever the size of the data"
    taken = []
    def rows():
        for i in range(40):
            taken.append(i)
            yield i
    results = pooled(packed(lambda i: i), rows(), 2, ahead=2)
    for i in range(40):
        assert next(results) == i and len(taken) <= i+4


def test_notes_of_formats_come_back(tmp_path):
    "counted over all shards, with the first place"
    tok = make_tokenizer('gpt2')
    def run(n):
        notes = {}
        context = FormatContext({}, notes=notes)
        def write(row, at):
            if row['i'] % 700 == 650: note(context, 'something is odd', at)
            return [Segment(str(row['i']), False), Segment('.', True)]
        fmt = RowFormat('own', 'split', write, dict(type='own'), noted=notes)
        s = Source(Rows('rows', lambda: ((i, dict(i=i)) for i in range(1, 2101))), fmt)
        assert prepare_and_lint([s], tok, tmp_path/f'{n}', dataset_num_proc=n).count.rows == 2100
        return fmt.notes
    assert run(1) == run(2) == ['something is odd (3 rows, first rows:650)']
