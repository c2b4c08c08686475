"""Whole sessions with simulated clients (eval/judging/clients.py), one or several in a row, rated as a whole.

Profiles are a YAML file (eval/judging/profiles.py; `profiles.zh.yaml` and `profiles.en.yaml` beside are written for
this project), or help-seeking posts: interactive-agents' (MIT) or your own. Rubric and prompts are ours; a second
rubric rates the client, since a session with a client that is badly played says little of the counsellor.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from data_pipeline import sources
from data_pipeline.errors import BadInput, did_you_mean
from data_pipeline.records import Post, Reject
from data_pipeline.safety.guidance import post_text
from eval.benchmarks.rubric import rubric, talks
from eval.contract import Answered, Benchmark, Item, Judge, Loaded, Scoring
from eval.judging.profiles import Fact, Language, Profile, read_profiles

HERE = Path(__file__).parent
POSTS = ("interactive_agents", "posts")
GREETING = {"zh": "你好", "en": "Hello."}  # of who wrote a post; as interactive-agents opens
_SENTENCE = re.compile(r"[^。！？!?…\n]+[。！？!?…]*|[。！？!?…]+")
_PIECE = 30  # characters of a post that are told at a time, at least; ours


def load(
    path: str | Path,
    source: str = "profiles",
    turns: int = 10,
    sessions: int = 1,
    most: int | None = 20,
    language: str = "zh",
    columns: dict | None = None,
) -> Loaded:
    """Returns an item for each client, in order.

    `source` is profiles, a YAML file of ours, or a reader of posts: interactive_agents or posts. `turns` is the
    client's longest session. `sessions` is how many it has in a row, with memory. `most` is how many clients are taken,
    the first ones; null takes all. `language` is that of posts, zh or en. `columns` maps those of posts, {text: 正文};
    null takes title and text. Raises BadInput for another one, and for a file that holds no profile.
    """
    rubric.check_language(language)
    if source != "profiles" and source not in POSTS:
        known = ("profiles", *POSTS)
        raise BadInput(f"options.source={source}: there is {', '.join(known)}{did_you_mean(source, known)}")
    notes, rejects = [], []
    if source == "profiles":
        file, profiles = read_profiles(Path(path), Profile)
        notes.append(f"clients: {file.title}; {file.source}; licence {file.licence}")
    else:
        records = list(sources.read(source, path, **({"columns": columns} if columns else {})))
        rejects = [one for one in records if isinstance(one, Reject)]
        profiles = [of_post(one, "en" if language == "en" else "zh") for one in records if isinstance(one, Post)]
        licence = getattr(sources.find_reader(source), "LICENCE", "your own")
        notes.append(f"clients: {len(profiles)} posts of {source}, licence {licence}; told piece by piece")
        notes += [f"{len(rejects)} posts are left out, first {rejects[0].reason}"] if rejects else []
    loaded = talks.items(talks.taken(profiles, most), "clients", turns, sessions)
    return Loaded(loaded, rejects, [*notes, *talks.notes(loaded, len(profiles))])


def of_post(post: Post, language: Language) -> Profile:
    """Returns the profile of who wrote a post: the client greets, and tells the post a piece each time it is asked."""
    pieces = [""]
    for sentence in _SENTENCE.findall(post_text(post)):
        if len(pieces[-1]) >= _PIECE:
            pieces.append("")
        pieces[-1] += sentence.strip()
    facts = tuple(Fact(tells=piece) for piece in pieces if piece)
    return Profile(id=post.id, language=language, about="", opening=GREETING[language], facts=facts)


def requests(item: Item) -> list[dict]:
    return talks.opening(item, HERE)


def judge(item: Item) -> Sequence[Judge]:
    return talks.judge(item, _rubric(item))


def _rubric(item: Item) -> rubric.Rubric:
    return rubric.read_rubric(HERE / f"rubric.{talks.language(item)}.yaml")


def score(answered: list[Answered], scoring: Scoring) -> list[list[dict[str, float | None]]]:
    return [talks.scores(one, _rubric(one.item)) for one in answered]


BENCHMARK = Benchmark(
    load=load,
    requests=requests,
    score=score,
    tables=rubric.report_tables,
    figures=talks.figures,
    judge=judge,
    session=talks.sitting,
    shown=talks.shown,
    about="profiles of ours (eval/benchmarks/client_sessions), of interactive-agents (qiuhuachuan/interactive-agents, "
    "MIT, 100 and 1,000 Chinese posts), or your own",
)
