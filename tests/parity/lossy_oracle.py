"""What the reference libraries make of a network that is cast or quantized: diffusers' layerwise casting, bitsandbytes,
torchao and gguf, on the CPU. A layer's weight is replaced by the library's decoded one, or the whole layer where the library
computes with another."""
import os
import re

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # bitsandbytes compiles its portable kernels otherwise

import bitsandbytes
import bitsandbytes.functional as bnb
import gguf
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from torchao.float8.inference import Float8MMConfig
from torchao.quantization import (Float8WeightOnlyConfig, Int8DynamicActivationInt8WeightConfig,
                                  Int8WeightOnlyConfig, PerRow, quantize_)
from torchao.quantization.quantize_.workflows.float8.float8_tensor import (
    Float8Tensor, QuantizeTensorToFloat8Kwargs)

FOUR_BIT = ("nf4", "nf4_dq", "fp4", "fp4_dq")
GGUF = ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1")
TORCHAO = {"int8wo": Int8WeightOnlyConfig, "int8dyn": Int8DynamicActivationInt8WeightConfig,
           "fp8wo": Float8WeightOnlyConfig}
WEIGHT_ONLY = (*FOUR_BIT, "int8wo", "fp8wo", *GGUF)
DYNAMIC = ("int8", "int8dyn", "fp8dyn")
SCHEMES = (*WEIGHT_ONLY, *DYNAMIC)


def reaches(scheme, name, layer, skip=()):
    """Whether `scheme` quantizes this layer of a text encoder or transformer."""
    if not isinstance(layer, torch.nn.Linear) or any(part in name for part in skip):
        return False
    if name.endswith("DenseReluDense.wo"):  # transformers keeps it (T5PreTrainedModel._keep_in_fp32_modules)
        return False
    rows, columns = layer.weight.shape
    if scheme in GGUF:
        return columns % 32 == 0
    if scheme == "fp8dyn":  # torchao leaves other sizes alone
        return rows % 16 == 0 and columns % 16 == 0
    return True


def quantize(network, scheme, skip=(), threshold=6.0):
    """Replaces the weights or layers that `scheme` reaches. Returns the bytes that hold each, by name."""
    held = {}
    for name, layer in list(network.named_modules()):
        if not reaches(scheme, name, layer, skip):
            continue
        if scheme in FOUR_BIT or scheme in GGUF:
            decoded, held[name] = _decoded(scheme, layer.weight.detach())
            layer.weight = torch.nn.Parameter(decoded, requires_grad=False)
        else:
            replaced, held[name] = _layer(scheme, layer, threshold)
            network.set_submodule(name, replaced)
    if not held:
        raise ValueError(f"{scheme} reaches no layer")
    return held


def _bytes(*tensors):
    return sum(tensor.nbytes for tensor in tensors)


def decode4(packed, state):
    """bitsandbytes' portable kernel: its AVX-512 one takes another block's scale where a row is a multiple of 16 and not
    of 64 values."""
    absmax = state.absmax
    if state.nested:
        absmax = bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset
    return _dequantize_4bit_compute(packed.reshape(-1), absmax, state.code, state.blocksize,
                                    state.shape, state.dtype)


def _decoded(scheme, weight):
    if scheme in FOUR_BIT:
        packed, state = bnb.quantize_4bit(weight, quant_type=scheme[:3],
                                          compress_statistics=scheme.endswith("_dq"))
        held = _bytes(packed, state.absmax)
        if state.nested:
            held += _bytes(state.state2.absmax, state.state2.code, state.offset)
        return decode4(packed, state), held
    kind = gguf.GGMLQuantizationType[scheme.upper()]
    blocks = gguf.quants.quantize(weight.float().numpy(), kind)
    values = torch.from_numpy(gguf.quants.dequantize(blocks, kind).copy())
    return values.to(weight.dtype), blocks.nbytes


def _layer(scheme, layer, threshold):
    weight = layer.weight.detach()
    if scheme in TORCHAO:
        quantize_(layer, TORCHAO[scheme]())
        # The scales in float32, whatever torchao rounds them to.
        return layer, _bytes(layer.weight.qdata, layer.weight.scale.float())
    if scheme == "fp8dyn":
        replaced = _Float8Dynamic(weight, layer.bias)
        return replaced, _bytes(replaced.quantized.qdata, replaced.quantized.scale)
    replaced = bitsandbytes.nn.Linear8bitLt(
        weight.shape[1], weight.shape[0], bias=layer.bias is not None, has_fp16_weights=False,
        threshold=threshold)
    replaced.weight = bitsandbytes.nn.Int8Params(weight.clone(), requires_grad=False,
                                                 has_fp16_weights=False)
    replaced.bias = layer.bias
    replaced = replaced.to("cpu").eval()
    return replaced, _bytes(replaced.weight.CB, replaced.weight.SCB)


class _Float8Dynamic(torch.nn.Module):
    """Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()), which refuses a CPU: its tensors, and their
    product written out."""

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = torch.nn.Parameter(weight, requires_grad=False), bias
        self.quantized = Float8Tensor.from_hp(
            weight, granularity=PerRow(), mm_config=Float8MMConfig(use_fast_accum=True),
            act_quant_kwargs=QuantizeTensorToFloat8Kwargs(torch.float8_e4m3fn, PerRow()))

    def forward(self, x):
        tokens = Float8Tensor.from_hp(x.reshape(-1, x.shape[-1]), granularity=PerRow())
        y = tokens.qdata.double() @ self.quantized.qdata.double().t()
        y = y * tokens.scale.double() * self.quantized.scale.double().t()
        if self.bias is not None:
            y = y + self.bias.double()
        return y.to(x.dtype).view(*x.shape[:-1], -1)


def tremble(network, names, size, seed):
    """From now on the inputs of these layers are off by up to `size` of each value: what rounding in another order
    does."""
    generator = torch.Generator().manual_seed(seed)

    def disturb(_, inputs):
        noise = torch.rand(inputs[0].shape, generator=generator) * 2 - 1
        return (inputs[0] * (1 + size * noise), *inputs[1:])

    for name in names:
        network.get_submodule(name).register_forward_pre_hook(disturb)


def cast(pipeline, component, storage, compute, but=()):
    """diffusers' layerwise casting of all but these layers. Returns the bytes of what is cast."""
    from diffusers.hooks import apply_layerwise_casting
    from diffusers.hooks.layerwise_casting import DEFAULT_SKIP_MODULES_PATTERN
    network = getattr(pipeline, component)
    skip = (*DEFAULT_SKIP_MODULES_PATTERN, *(f"^{re.escape(name)}$" for name in but))
    if not hasattr(network, "enable_layerwise_casting"):  # an encoder of transformers'
        # T5 converts activations to the dtype in which `wo` is stored, and the pipeline converts the states (and some draw
        # the noise) in the first parameter's; neither expects casting.
        for name, layer in list(network.named_modules()):
            if name.endswith("DenseReluDense.wo"):
                network.set_submodule(name, _Boxed(layer))
        apply_layerwise_casting(network, storage, compute, skip)
        # transformers knows by a class's whole name which layers' outputs are to be kept.
        known = type(network)
        network.__class__ = type(known.__name__, (known,), {"__module__": known.__module__, "dtype": property(lambda _: compute)})
    else:
        network.enable_layerwise_casting(storage, compute, skip)
    held = sum(p.nbytes for p in network.parameters() if p.dtype == storage)
    if held == 0:
        raise ValueError(f"{component}: nothing is cast")
    return held


class _Boxed(torch.nn.Module):
    weight = None  # hides the layer's dtype

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


def load_quantized(cls, folder, **options):
    """cls.from_pretrained with a BitsAndBytesConfig of `options`, on the CPU."""
    import diffusers
    import transformers
    from diffusers.quantizers.bitsandbytes import bnb_quantizer
    # diffusers wants a GPU before it quantizes; everything it then calls runs on the CPU.
    for quantizer in (bnb_quantizer.BnB4BitDiffusersQuantizer, bnb_quantizer.BnB8BitDiffusersQuantizer):
        quantizer.validate_environment = lambda self, *args, **kwargs: None
        quantizer.update_device_map = lambda self, device_map: {"": "cpu"}
    library = diffusers if issubclass(cls, diffusers.ModelMixin) else transformers
    return cls.from_pretrained(folder, quantization_config=library.BitsAndBytesConfig(**options),
                               **{"torch_dtype" if library is diffusers else "dtype": torch.float32})


def decode_serialized(network):
    """Replaces 4-bit layers, whose own product rounds to bfloat16 and decodes as decode4 says, by plain ones."""
    for name, layer in list(network.named_modules()):
        if isinstance(layer, bitsandbytes.nn.Linear4bit):
            plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
            plain.weight = torch.nn.Parameter(decode4(layer.weight.data, layer.weight.quant_state),
                                              requires_grad=False)
            plain.bias = layer.bias
            network.set_submodule(name, plain)
