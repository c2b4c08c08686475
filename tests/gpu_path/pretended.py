"""Eight H100 as torch and vLLM would see them, on which nothing can be computed. Call first of all."""

# vLLM is in the GPU set alone
# pyright: reportMissingImports=false

import types

CARDS, MEMORY, NAME = 8, 80 * 2**30, "NVIDIA H100 80GB HBM3"


def pretend_torch() -> None:
    """Makes torch say that eight H100 are there."""
    import torch

    seen = types.SimpleNamespace(major=9, minor=0, name=NAME, total_memory=MEMORY, multi_processor_count=132)
    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: CARDS
    torch.cuda.current_device = lambda: 0
    torch.cuda.get_device_name = lambda *_, **__: NAME
    torch.cuda.get_device_capability = lambda *_, **__: (9, 0)
    torch.cuda.is_bf16_supported = lambda *_, **__: True
    torch.cuda.get_device_properties = lambda *_, **__: seen  # pyright: ignore[reportAttributeAccessIssue]


def pretend_vllm() -> None:
    """Makes vLLM say so too: its platform for CUDA without NVML, with an H100's answers."""
    import vllm.platforms as platforms
    from vllm.platforms.cuda import NonNvmlCudaPlatform
    from vllm.platforms.interface import DeviceCapability

    class Pretended(NonNvmlCudaPlatform):
        @classmethod
        def get_device_capability(cls, device_id=0):
            return DeviceCapability(9, 0)

        @classmethod
        def has_device_capability(cls, capability, device_id=0):
            return 90 >= (capability if isinstance(capability, int) else 10 * capability[0] + capability[1])

        @classmethod
        def get_device_name(cls, device_id=0):
            return NAME

        @classmethod
        def get_device_total_memory(cls, device_id=0):
            return MEMORY

        @classmethod
        def device_count(cls):
            return CARDS

        @classmethod
        def log_warnings(cls):
            return None

    platforms._current_platform = Pretended()
