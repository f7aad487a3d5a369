"Prepared rows in other training loops: the labels survive, and the loss is that of the trained tokens."
import pytest

torch = pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from datasets import load_from_disk

import segtune as sg
from segtune.models import bundled

ROWS = [dict(segments=[dict(label=False, text='Say hello.\n'), dict(label=True, text='Hello!<|endoftext|>')]),
        dict(segments=[dict(label=False, text='Count to three.\n'), dict(label=True, text='One,'), dict(label=False, text=' (a pause)'), dict(label=True, text=' two.<|endoftext|>')]),
        dict(segments=[dict(label=True, text='All of it.<|endoftext|>')])]


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
    "A prepared directory, as a `datasets.Dataset`"
    data = sg.prepare(ROWS, 'bundled:tiny', sequence_len=64, dataset_prepared_path=str(tmp_path_factory.mktemp('prepared')))
    return load_from_disk(str(data.path))


@pytest.fixture
def tok():
    t = transformers.AutoTokenizer.from_pretrained(bundled('tiny'))
    t.pad_token = t.pad_token or t.eos_token
    return t


@pytest.fixture
def model(): return transformers.AutoModelForCausalLM.from_pretrained(bundled('tiny'), dtype=torch.float32)


def loss_by_hand(model, rows):
    "Mean cross-entropy over the trained tokens of all rows, each row by itself"
    total = n = 0
    for row in rows:
        with torch.no_grad(): logits = model(input_ids=torch.tensor([row['input_ids']])).logits[0, :-1]
        target = torch.tensor(row['labels'][1:])
        total += torch.nn.functional.cross_entropy(logits, target, ignore_index=-100, reduction='sum').item()
        n += int((target != -100).sum())
    return total/n


def unpadded(batch, rows):
    "The labels of a batch, each as long as its row; what follows must be masked"
    for labels, row in zip(batch['labels'].tolist(), rows): assert set(labels[len(row['labels']):]) <= {-100}
    return [labels[:len(row['labels'])] for labels, row in zip(batch['labels'].tolist(), rows)]


def test_the_directory_and_encode_give_the_same_rows(prepared):
    encoded = sg.encode(ROWS, 'bundled:tiny')
    for k in ('input_ids', 'labels', 'attention_mask'): assert list(prepared[k]) == list(encoded[k])
    assert all(l in (-100, i) for ids, labels in zip(prepared['input_ids'], prepared['labels']) for i, l in zip(ids, labels))


def test_transformers_trainer_trains_the_prepared_labels(prepared, tok, model, tmp_path):
    collator = transformers.DataCollatorForSeq2Seq(tok)
    rows = [prepared[i] for i in range(len(prepared))]
    assert unpadded(collator(rows), rows) == list(prepared['labels'])
    args = transformers.TrainingArguments(str(tmp_path), max_steps=1, per_device_train_batch_size=len(rows), learning_rate=0.0, report_to=[], use_cpu=True, save_strategy='no', logging_strategy='no',
                                          disable_tqdm=True)
    found = transformers.Trainer(model, args, train_dataset=prepared, data_collator=collator).train().training_loss
    assert found == pytest.approx(loss_by_hand(model, rows), abs=1e-4)


def test_the_usual_collator_of_language_models_would_train_the_prompts(prepared, tok):
    collator = transformers.DataCollatorForLanguageModeling(tok, mlm=False)
    assert collator([prepared[1]])['labels'][0].tolist() != prepared[1]['labels']
    with pytest.raises(ValueError, match='labels'): collator([prepared[0], prepared[1]])


@pytest.mark.parametrize('max_length', [None, 1024])
def test_sft_trainer_takes_prepared_rows_as_they_are(prepared, tok, model, tmp_path, max_length):
    trl = pytest.importorskip('trl')
    args = trl.SFTConfig(str(tmp_path), max_length=max_length, bf16=False, max_steps=1, per_device_train_batch_size=len(prepared), learning_rate=0.0, report_to=[], use_cpu=True, save_strategy='no', disable_tqdm=True)
    trainer = trl.SFTTrainer(model, args, train_dataset=prepared, processing_class=tok)
    rows = [trainer.train_dataset[i] for i in range(len(prepared))]
    assert [o['input_ids'] for o in rows] == list(prepared['input_ids']) and [o['labels'] for o in rows] == list(prepared['labels'])
    assert unpadded(trainer.data_collator(rows), rows) == list(prepared['labels'])
    assert trainer.train().training_loss == pytest.approx(loss_by_hand(model, rows), abs=1e-4)


def test_the_directory_is_what_axolotl_asks_of_tokenized_rows(prepared):
    assert sorted(prepared.column_names) == ['attention_mask', 'input_ids', 'labels']
    assert {str(f.feature.dtype) for f in prepared.features.values()} == {'int32', 'int8'}
