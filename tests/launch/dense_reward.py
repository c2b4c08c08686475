"""A reward with variance from the first step, for tests of the machinery: the share of distinct characters."""


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    return {"score": len(set(solution_str)) / (len(solution_str) + 1), "acc": 0.0}
