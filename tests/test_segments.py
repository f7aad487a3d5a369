"Reading rows strictly: each oddity of a file has a stated treatment."
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segtune.segments import DataError, Segment, merge_segments, read_jsonl, row2segments, segments2row

good = b'{"segments": [{"label": true, "text": "hi"}]}'


def read(tmp_path, data):
    (tmp_path/'d.jsonl').write_bytes(data)
    return [(line, row2segments(row, 'd.jsonl', line)) for line, row in read_jsonl(tmp_path/'d.jsonl')]


@pytest.mark.parametrize('data, lines', [
    (good, [1]), (good+b'\n', [1]), (good+b'\r\n'+good, [1, 2]), (b'\xef\xbb\xbf'+good, [1]), (b'\n\n'+good+b'\n  \n\t\n'+good, [3, 6]),
])
def test_read(tmp_path, data, lines): assert read(tmp_path, data) == [(n, [Segment('hi', True)]) for n in lines]


@pytest.mark.parametrize('data, message', [
    (b'', 'd.jsonl: the file has no rows.'),
    (b'\n \n', 'd.jsonl: the file has no rows.'),
    (good+b'\n{"segments"', 'd.jsonl:2: invalid JSON at column 12'),
    (good+b'\n{"segments": "\xff"}', 'd.jsonl:2: invalid UTF-8 at byte 14, got 0xff'),
    (good+b'\nnull', 'd.jsonl:2: expected an object, got null'),
    (good+b'\n[1]', 'd.jsonl:2: expected an object, got [1] (a list)'),
    (b'{"segments": [], "segments": []}', "d.jsonl:1: key 'segments' is given twice"),
    (b'{"segments": {}}', 'd.jsonl:1 segments: expected a list, got {} (an object)'),
    (b'{"segment": []}', "d.jsonl:1: \"segments\" is missing; the row has 'segment'. Is 'segment' meant?"),
    (b'{"segments": [{"label": true}]}', "d.jsonl:1 segments[0]: 'text' is missing"),
    (b'{"segments": [{"text": "a"}]}', "d.jsonl:1 segments[0]: 'label' is missing"),
    (b'{"segments": [{"text": "a", "label": "false"}]}', 'd.jsonl:1 segments[0].label: expected true or false, got "false" (a string)'),
    (b'{"segments": [{"text": "a", "label": 0}]}', 'd.jsonl:1 segments[0].label: expected true or false, got 0 (a number)'),
    (b'{"segments": [{"text": "a", "label": null}]}', 'd.jsonl:1 segments[0].label: expected true or false, got null'),
    (b'{"segments": [{"text": 3, "label": true}]}', 'd.jsonl:1 segments[0].text: expected a string, got 3 (a number)'),
    (b'{"segments": [{"text": "a", "label": true, "specal": false}]}', "d.jsonl:1 segments[0]: unknown key 'specal'. Did you mean 'special'?"),
    (b'{"segments": [{"text": "a \\udc00", "label": true}]}', 'd.jsonl:1 segments[0].text: character 2 is a lone surrogate'),
    (b'['*100_000, 'd.jsonl:1: the JSON is nested too deeply'),
])
def test_refused(tmp_path, data, message):
    with pytest.raises(DataError) as e: read(tmp_path, data)
    assert str(e.value).replace(str(tmp_path)+'/', '').startswith(message)


def test_place_is_carried(tmp_path):
    with pytest.raises(DataError) as e: read(tmp_path, good+b'\n{"segments": [{"text": "a", "label": true}, {"text": "b", "label": 1}]}')
    assert (e.value.source, e.value.row, e.value.segment) == ('d.jsonl', 2, 1)


rows = st.lists(st.builds(Segment, st.text(st.characters(exclude_categories=['Cs']), max_size=5), st.booleans(), st.booleans(), st.just(False), st.just(False)))


@given(rows, st.booleans())
def test_there_and_back(segments, fresh):
    segments = [s._replace(fresh=fresh) for s in segments]
    assert row2segments(json.loads(json.dumps(segments2row(segments)))) == segments


@given(rows)
def test_merging_keeps_text_and_labels(segments):
    def chars(o): return [(c, s.label, s.special) for s in o for c in s.text]
    merged = merge_segments(segments)
    assert chars(merged) == chars(segments)
    assert all(a[1:] != b[1:] for a, b in zip(merged, merged[1:], strict=False)) and all(s.text for s in merged)
