"""Profiles of simulated clients, in YAML: who they are, how they speak, what they tell and when, how they end.

    title: Three clients
    source: written for this project
    licence: Apache-2.0
    profiles:
      - id: exam
        language: zh                       # or en; of prompts and conversation
        about: 大三女生，20 岁，说话轻，爱用省略号   # what the client knows of itself from the start
        opening: 老师好，我最近睡不好。        # first words, as they stand
        stance: reserved                   # open, reserved or resistant; null: drawn by the seed
        facts:
          - {tells: 上学期挂了两门课, topic: 学习情况}  # once the counsellor asks about it
          - {tells: 其实很怕让爸妈失望}          # once it asks anything, or invites to go on; one at a time, in order
          - {tells: 昨晚一整夜没睡, turn: 4}      # unasked, with its 4th turn
          - {tells: 和妈妈谈过一次, session: 2, turn: 2}  # in a later session
        most_sentences: 2                  # of a turn; how many it says is drawn by the seed
        stays: 8                           # its last turn of a session; null: up to the limit of the evaluation
        again: 老师好，我又来了。            # first words of further sessions

A fact that is not due yet stands in no prompt of the client, so that it cannot be told before."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from data_pipeline.errors import BadInput, first_fault

Stance = Literal["open", "reserved", "resistant"]
STANCES = get_args(Stance)
WEIGHTS = (5, 3, 2)  # of the stances, where a profile has none; ours
Language = Literal["zh", "en"]
AGAIN = {"zh": "你好，我又来了。", "en": "Hello, I am back."}


class Fact(BaseModel, extra="forbid", frozen=True):
    tells: str = Field(min_length=1)
    topic: str = ""
    turn: int | None = Field(default=None, ge=2)  # the first words are the opening
    session: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _one_way(self) -> "Fact":
        if self.topic and self.turn is not None:
            raise ValueError("takes topic (told once it is asked about) or turn (told unasked), not both")
        return self


class Profile(BaseModel, extra="forbid", frozen=True):
    id: str = Field(min_length=1)
    language: Language
    about: str
    opening: str = Field(min_length=1)
    stance: Stance | None = None
    facts: tuple[Fact, ...] = ()
    most_sentences: int = Field(default=2, ge=1)
    stays: int | None = Field(default=None, ge=2)
    again: str = ""

    @property
    def texts(self) -> list[str]:
        """All that the client knows and says."""
        return [self.about, self.opening, *(fact.tells for fact in self.facts)]

    def first_words(self, session: int) -> str:
        """Returns what the client says first in a session, counted from 1."""
        return self.opening if session == 1 else self.again or AGAIN[self.language]

    def stance_of(self, seed: int, sample: int) -> Stance:
        drawn = random.Random(f"{seed} {self.id} {sample}").choices(STANCES, WEIGHTS)[0]
        return self.stance or drawn

    def sentences(self, seed: int, row: str) -> int:
        """Returns how many sentences the turn of that row has at most."""
        return random.Random(f"{seed} {row}").randint(1, self.most_sentences)


@dataclass(frozen=True)
class Sitting:
    """With whom a model talks, and how long at most."""

    profile: Profile
    turns: int  # of the client, in each session
    sessions: int = 1  # in a row


AnyProfile = TypeVar("AnyProfile", bound=Profile)


class ProfileFile(BaseModel, extra="forbid", frozen=True):
    title: str
    source: str
    licence: str
    profiles: list[Any] = Field(min_length=1)


def read_profiles(file: Path, kind: type[AnyProfile]) -> tuple[ProfileFile, list[AnyProfile]]:
    """Returns what the file says of itself, and its profiles in order; raises BadInput with file, profile and key."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise BadInput(f"{file}: no dictionary of title, source, licence and profiles (eval/judging/profiles.py)")
        where, profiles = "", []
        whole = ProfileFile.model_validate(content)
        for number, one in enumerate(whole.profiles, 1):
            where = f"profile {number}" + (f" ({one['id']})" if isinstance(one, dict) and one.get("id") else "")
            profiles.append(kind.model_validate(one))
        return whole, profiles
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}; a YAML file of profiles is read") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "missing":  # whose value would be the whole profile
            raise BadInput(f"{file}: {'.'.join(filter(None, (where, *map(str, first['loc']))))} is missing") from None
        raise BadInput(f"{file}: {first_fault(where, error)}") from None
