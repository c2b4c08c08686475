"""Generates responses in this process with a Hugging Face model, in batches: the embedded default of evaluation."""

from rich.progress import track

from data_pipeline.records import Response


def generate(
    model: str,
    conversations: list[list[dict]],
    samples: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    batch_size: int,
    seed: int,
    title: str = "generating",
) -> list[list[Response]]:
    """Returns `samples` responses per conversation, in order. Temperature 0 is greedy.

    Batches are sorted by length; the seed makes a run repeatable on the same machine with the same batch size.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours shows what takes long
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    network = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).to(device).eval()
    ends = network.generation_config.eos_token_id or tokenizer.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {}
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, eos_token_id=sorted(ends), pad_token_id=tokenizer.pad_token_id, **sampling
    )
    prompts = tokenizer.apply_chat_template(conversations, tokenize=False, add_generation_prompt=True)
    order = sorted((len(prompt), item, sample) for item, prompt in enumerate(prompts) for sample in range(samples))
    responses = [[None] * samples for _ in prompts]
    torch.manual_seed(seed)
    for start in track(range(0, len(order), batch_size), description=f"  {title}", transient=True):
        batch = order[start : start + batch_size]
        inputs = tokenizer(
            [prompts[item] for _, item, _ in batch], return_tensors="pt", padding=True, add_special_tokens=False
        ).to(device)
        with torch.inference_mode():
            output = network.generate(**inputs, generation_config=settings)[:, inputs["input_ids"].shape[1] :].tolist()
        for (_, item, sample), ids in zip(batch, output, strict=True):
            end = next((i for i, token in enumerate(ids) if token in ends), None)
            text = tokenizer.decode(ids[:end], skip_special_tokens=True)
            responses[item][sample] = Response(text, "length" if end is None else "stop", len(ids[:end]))
    return responses
