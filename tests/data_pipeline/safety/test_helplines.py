"""Help lines: those that are shipped and one's own have name, number, source and day, or are refused by their place."""

import re
from dataclasses import asdict
from datetime import date

import pytest

from data_pipeline.errors import BadInput
from data_pipeline.safety.helplines import HELPLINES, HELPLINES_BY_COUNTRY, Helpline, check_helplines

OWN = {"name": "某地热线", "number": "0000", "source": "某地公告", "date": "2025-01-02"}


def test_every_number_that_is_shipped_names_its_source_and_day():
    assert HELPLINES == HELPLINES_BY_COUNTRY["cn"] and len(HELPLINES_BY_COUNTRY) >= 3
    for line in (line for lines in HELPLINES_BY_COUNTRY.values() for line in lines):
        assert line.name and line.source and re.fullmatch(r"\+?\d[\d ()-]+", line.number), line
        assert date.fromisoformat(line.date), line


def test_a_given_list_comes_back_as_help_lines():
    assert check_helplines("chat", [OWN, HELPLINES[0]]) == (Helpline(**OWN), HELPLINES[0])
    assert check_helplines("chat", ()) == () and asdict(check_helplines("chat", [OWN])[0]) == OWN


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([OWN, {"name": "热线"}], "chat: helplines[1]: {'name': '热线'}; each needs name, number, source, date"),
        ([OWN | {"note": ""}], "chat: helplines[0]: {"),
        ([OWN | {"number": 12356}], "chat: helplines[0]: number=12356; a text (write numbers and dates in quotes)"),
        ([OWN | {"source": " "}], "chat: helplines[0]: source=' '; a text"),
        ([OWN | {"date": "2025-13-01"}], "chat: helplines[0]: date='2025-13-01'; a day as YYYY-MM-DD"),
        ([OWN | {"date": date(2025, 1, 2)}], "chat: helplines[0]: date=datetime.date(2025, 1, 2); a text"),
        (["12356"], "chat: helplines[0]: '12356'; each needs name, number, source, date"),
        ("12356", "chat: helplines='12356'; a list of {name, number, source, date}"),
        (12356, "chat: helplines=12356; a list of {name, number, source, date}"),
        (None, "chat: helplines=None; a list of {name, number, source, date}"),
        (OWN, "chat: helplines={'name': '某地热线', "),
    ],
)
def test_what_is_no_help_line_is_refused_by_its_place(given, told):
    with pytest.raises(BadInput, match=f"^{re.escape(told)}"):
        check_helplines("chat", given)
