"""What calls cost: totals, budgets and estimates."""

import pytest

from data_pipeline import llm
from data_pipeline.errors import BadInput
from data_pipeline.llm import Server
from tests.data_pipeline.llm.conftest import PRICES, requests, rows
from tests.model_server import Answer, ModelServer, completion


def test_totals_count_calls_tokens_and_cost_by_step_and_model(ledger):
    plan = {"b": [Answer(completion("", usage=(10, 0))), Answer(completion("yes", usage=(10, 20)))]}
    assert llm.totals(ledger) == []
    with ModelServer(plan=plan) as server:
        priced = Server(server.url, "tiny", input_price=1.0, output_price=10.0)
        llm.run_all(priced, requests("a", "b", step="first"), ledger, "first")
        llm.run_all(Server(server.url, "free"), requests("c", step="second"), ledger, "second")
    first, second = llm.totals(ledger)
    assert first == {
        "step": "first",
        "model": "tiny",
        "served": "tiny",
        "calls": 2,
        "failures": 0,
        "prompt_tokens": 20,
        "completion_tokens": 25,
        "cost": pytest.approx((10 + 50 + 10 + 10 + 200) / 1e6),  # the empty answer was paid for as well
    }
    assert (second["step"], second["model"], second["cost"]) == ("second", "free", None)


def test_a_budget_stops_before_the_request_that_would_exceed_it_and_a_larger_one_goes_on(ask, ledger):
    with ModelServer(latency=0.01) as server:
        settings = {**PRICES, "concurrency": 4, "params": {"max_tokens": 20}}
        with pytest.raises(llm.BudgetSpent) as stop:
            ask(server, *rows(20), **settings, budget=100)
        spent = llm.totals(ledger)[0]["cost"]
        assert len(server.calls) == spent / 15  # what was in flight has finished and is in the ledger
        assert 60 < spent <= 100  # one more, of 12 + 20 tokens, would not have fitted
        left = 20 - len(server.calls)
        assert f"the test: the budget of 100 is spent ({spent:.4f} in {ledger}): {left} of 20 requests are" in str(
            stop.value
        )
        with pytest.raises(llm.BudgetSpent):  # it holds over runs, not per run
            ask(server, *rows(20), **settings, budget=spent)
        assert len(server.calls) == spent / 15
        replies = ask(server, *rows(20), **settings, budget=1000)
    assert [reply.text for reply in replies] == [f"reply to {row}" for row in rows(20)]
    assert set(server.counts().values()) == {1}


def test_a_budget_counts_what_is_in_flight(ask, ledger):
    with ModelServer(latency=0.2) as server, pytest.raises(llm.BudgetSpent):
        ask(server, *rows(50), **PRICES, params={"max_tokens": 20}, budget=100)
    assert server.most_in_flight <= 100 // 32 and llm.totals(ledger)[0]["cost"] <= 100


def test_a_budget_of_0_asks_nothing_but_replays(ask):
    with ModelServer() as server:
        for prices in ({}, PRICES, {"input_price": 0, "output_price": 0}):
            with pytest.raises(llm.BudgetSpent, match="the test: the budget is 0: 2 of 2 requests are not asked"):
                ask(server, "a", "b", **prices, budget=0)
        assert not server.calls
        replies = ask(server, "a")
        assert ask(server, "a", budget=0) == replies and len(server.calls) == 1
        with pytest.raises(llm.BudgetSpent, match="1 of 2 requests"):
            ask(server, "a", "b", budget=0)


def test_free_calls_never_spend_a_budget(ask):
    with ModelServer() as server:
        assert len(ask(server, *rows(5), input_price=0, output_price=0, budget=0.01)) == 5


@pytest.mark.parametrize("budget", [-1, float("nan"), float("inf"), True, "10"])
def test_a_wrong_budget_is_refused(ask, budget):
    with pytest.raises(BadInput, match="the test: budget: .* is not a sum of money"):
        ask("http://127.0.0.1:9/v1", "a", **PRICES, budget=budget)


def test_a_budget_needs_prices(ask):
    with pytest.raises(BadInput, match="budget=10 needs prices: set input_price and output_price of 'tiny'"):
        ask("http://127.0.0.1:9/v1", "a", budget=10)


def test_an_estimate_counts_what_the_ledger_does_not_have_and_asks_nothing(ask, ledger):
    wanted = requests(*rows(10), "row 1", max_tokens=20)
    nowhere = Server("http://127.0.0.1:9/v1", "tiny", api_key_env="NOT_SET", **PRICES)
    estimate = llm.estimate(nowhere, wanted, ledger)
    assert (estimate.calls, estimate.tokens) == (10, 200)  # equal requests are one call
    assert estimate.cost == estimate.prompt_tokens + 200 and 50 < estimate.prompt_tokens < 200
    assert isinstance(ledger, str) or not ledger.exists()
    with ModelServer(plan={"row 0": [Answer(b"", status=400)]}) as server:
        ask(server, *rows(4), params={"max_tokens": 20})
    assert llm.estimate(nowhere, wanted, ledger).calls == 7  # the failed one is asked again
    free = llm.estimate(Server(nowhere.base_url, "tiny"), requests("new"), ledger)
    assert (free.calls, free.tokens, free.cost) == (1, 0, None)


def test_asker_is_the_callable_of_a_step(ledger):
    with ModelServer() as server:
        ask = llm.asker(Server(server.url, "tiny", **PRICES), ledger, "the step", budget=20)
        assert ask(requests("a"))[0].text == "reply to a"
        with pytest.raises(llm.BudgetSpent, match="^the step: "):
            ask(requests("b", max_tokens=20))
