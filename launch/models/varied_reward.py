"""A reward of its own for every text, so that a random model has a gradient: `launch.check_gpu` trains by it."""

from zlib import crc32


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **of_a_recipe):
    """Returns {"score": 0 to 1}, of the text's checksum; verl calls it by path."""
    return {"score": crc32(solution_str.encode()) % 1000 / 1000}
