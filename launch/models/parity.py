"""Whether two networks say the same: the log-probabilities of a few prompts' own tokens, in fp32."""

from typing import Any

Probabilities = list[Any]  # a tensor for each prompt


def log_probs(network: Any, tokenizer: Any, prompts: list[list[dict]]) -> Probabilities:
    """Returns the log-probability of every token of each prompt, as the network, which becomes fp32, gives it."""
    import torch

    network, by_prompt = network.float().eval(), []
    for prompt in prompts:
        encoded = tokenizer.apply_chat_template(
            prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        ids = encoded["input_ids"]
        with torch.inference_mode():
            scores = torch.log_softmax(network(ids).logits[0, :-1].double(), -1)
        by_prompt.append(scores.gather(-1, ids[0, 1:, None])[:, 0])
    return by_prompt


def difference(ours: Probabilities, theirs: Probabilities) -> float:
    """Returns the largest difference of a log-probability, in nats."""
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
