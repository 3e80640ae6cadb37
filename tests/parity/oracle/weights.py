"""Random weights that hide nothing, scaled so that the frames are neither flat nor clipped."""
import math

import torch


class _Seen(Exception):
    """Ends a pipeline call as soon as the layer of interest has spoken."""


def randomize(module, seed):
    """Draws every parameter and statistic afresh, so that no zero or one is left to hide a mistake."""
    generator = torch.Generator().manual_seed(seed)

    def normal(parameter):
        return torch.randn(parameter.shape, generator=generator)

    with torch.no_grad():
        for name, parameter in sorted(module.named_parameters()):
            if "timestep_scale_multiplier" in name:
                continue
            parameter.copy_(_draw(name, parameter, normal))
        for name, buffer in sorted(module.named_buffers()):
            if name.endswith("latents_mean"):
                buffer.copy_(0.2 * normal(buffer))
            elif name.endswith("latents_std"):
                buffer.copy_(1.0 + 0.2 * normal(buffer).clamp(-2, 2))
    return module.eval()


def _draw(name, parameter, normal):
    if "pos_frequencies" in name:
        return normal(parameter) * 0.3
    if "per_channel_scale" in name:
        return normal(parameter) * 0.1
    if "scale_shift_table" in name:
        return normal(parameter) * 0.2
    if parameter.ndim <= 1:
        is_scale = name.rsplit(".", 1)[-1] == "weight"
        return 1.0 + 0.1 * normal(parameter) if is_scale else 0.05 * normal(parameter)
    if "relative_attention_bias" in name:
        return normal(parameter) * 0.5
    if parameter.ndim == 2 and _is_embedding(name):
        return normal(parameter) * 0.7
    return normal(parameter) * 1.0 / math.sqrt(parameter[0].numel())


def _is_embedding(name):
    return ("embed" in name and "linear" not in name and "proj" not in name
            and any(word in name for word in ("shared", "token", "position_embedding")))


def rescale_last_layer(layer, call, target_std, centre):
    """Scales `layer` so that its first output in `call()` has `target_std`; the call ends there."""
    seen = []

    def look(module, inputs, output):
        seen.append((output[0] if isinstance(output, tuple) else output).float())
        raise _Seen

    hook = layer.register_forward_hook(look)
    try:
        call()
    except _Seen:
        pass
    finally:
        hook.remove()
    if not seen:
        return
    std = float(seen[0].std()) or 1.0
    inner = layer.conv if hasattr(layer, "conv") and not hasattr(layer, "weight") else layer
    with torch.no_grad():
        inner.weight.mul_(target_std / std)
        if inner.bias is not None:
            mean = float(seen[0].mean()) if centre else 0.0
            inner.bias.sub_(mean).mul_(target_std / std)
