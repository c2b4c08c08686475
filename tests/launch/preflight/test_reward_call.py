"""A user's reward function is called once before anything starts: what it does wrong is told with file and line."""

import pytest

from data_pipeline.errors import BadInput
from launch.preflight import reward_call

ROW = {
    "data_source": "own",
    "prompt": [],
    "reward_model": {"style": "rule", "ground_truth": "AB"},
    "extra_info": {"id": 1},
}
HEAD = "def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):\n"


def check(tmp_path, source: str, **kwargs) -> list[str]:
    file = tmp_path / "mine.py"
    file.write_text(source, encoding="utf-8")
    asked = {"path": str(file), "name": "compute_score", "kwargs": kwargs}
    return reward_call.check(asked, ROW, {"SEEN": "yes"}, "reward.custom_reward_function")


@pytest.mark.parametrize(
    "source",
    [
        HEAD + "    print('noise')\n    return float(solution_str == ground_truth and kwargs['weight'] == 2)\n",
        HEAD + "    import os\n    return {'score': int(os.environ['SEEN'] == 'yes'), 'acc': extra_info['id']}\n",
        f"async {HEAD}    return 0\n",
        "import dataclasses\n@dataclasses.dataclass\nclass P:\n    x: int\n" + HEAD + "    return P(1).x\n",
    ],
)
def test_what_verl_takes_passes(tmp_path, source):
    assert check(tmp_path, source, weight=2) == []


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import no_such_package\n" + HEAD + "    return 0\n",
         "mine.py line 1: ModuleNotFoundError: No module named 'no_such_package', when it was imported;"),
        (HEAD + "    return {}['x']\n", "line 2: KeyError: 'x', when it was called once with the first prompt; mend"),
        (HEAD + "    return 'good'\n", "mine.py: TypeError: returned str 'good', when it was called once; verl takes"),
        (HEAD + "    return None\n", "returned NoneType None"),
        (HEAD + "    return float('nan')\n", "returned float nan"),
        (HEAD + "    return {'acc': 1}\n", "returned a dictionary without 'score': acc"),
        (HEAD + "    return {'score': [1, 2]}\n", "returned list [1, 2] as score"),
        ("def compute_score(answer, **kwargs):\n    return 1\n",
         "TypeError: missing a required argument: 'answer', when its arguments were looked at; verl calls it"),
        (HEAD + "    raise SystemExit(3)\n", "mine.py line 2: SystemExit: 3"),
        (HEAD + "    import os\n    os._exit(7)\n", "ended its process with 7"),
        ("import nothing_of_ours.\n", "line 1: SyntaxError"),
    ],
)  # fmt: skip
def test_what_it_does_wrong_is_told_with_its_line_and_a_cure(tmp_path, source, told):
    with pytest.raises(BadInput) as refused:
        check(tmp_path, source)
    assert told in str(refused.value) and "Traceback" not in str(refused.value)


def test_one_that_does_not_come_back_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(reward_call, "SECONDS", 1.0)
    (note,) = check(tmp_path, "import time\n" + HEAD + "    time.sleep(60)\n")
    assert "not back after 1 s" in note
