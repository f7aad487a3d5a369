"A thousand mutated configs, rows, files and tokenizers: a result or one clear error each. `python tests/mutate.py 10000` tries more."
import pytest
from mutate import KINDS, run_case


@pytest.mark.parametrize("first", range(0, 1000, 100))
def test_a_mutation_gives_a_result_or_one_clear_error(first):
    wrong = {}
    for number in range(first, first + 100):
        try: run_case(number)
        except Exception as e: wrong[number] = f"{type(e).__name__}: {e}"
    assert not wrong, wrong

def test_every_kind_is_tried(): assert {run_case(n)[0] for n in range(40)} == set(KINDS)
