"""The corpus: responses as models write them, half of them adversarial, each read as expected."""

from reward.answer import LETTERS, read
from tests.reward.corpus import ROWS


def test_every_response_of_the_corpus_reads_as_expected():
    wrong = []
    for row in ROWS:
        found = read(row["response"], row["options"], row["think_prefilled"])
        if found.letters != row["expected"]:
            wrong.append(f"{row['id']}: {found.letters} ({found.why}), expected {row['expected']}: {row['reason']}")
    assert not wrong, f"{len(wrong)} of {len(ROWS)}:\n" + "\n".join(wrong)


def test_the_corpus_is_large_enough_half_adversarial_and_sound():
    assert len(ROWS) >= 300
    assert sum(row["adversarial"] for row in ROWS) * 2 >= len(ROWS)
    assert len({row["id"] for row in ROWS}) == len(ROWS)
    for row in ROWS:
        letters = row["expected"] or ""
        assert row["reason"].strip() and row["expected"] != "", row["id"]
        assert letters == "".join(sorted(set(letters))), row["id"]
        assert set(letters) <= set(LETTERS[: len(row["options"])]), row["id"]
