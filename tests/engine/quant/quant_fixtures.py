"""Writes what bitsandbytes and torchao compute on the CPU, for the tests beside it: quant_fixtures.py OUT_FOLDER.

OUT_FOLDER/bnb4.safetensors, bnb8.safetensors, torchao.safetensors: weights, their quantized forms, decoded weights and
layer outputs, named <scheme>/<dtype>/<case>/<what>. OUT_FOLDER/serialized_*/ are tiny models as save_pretrained writes
them with a BitsAndBytesConfig, beside them decoded.safetensors: each layer's weight as the library decodes it.
"""
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TORCHDYNAMO_DISABLE"] = "1"  # bitsandbytes compiles its portable kernels otherwise

import bitsandbytes
import bitsandbytes.functional as bnb
import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from safetensors.torch import save_file
from torchao.float8.inference import Float8MMConfig
from torchao.quantization import (Float8WeightOnlyConfig, Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig,
                                  PerRow, quantize_)
from torchao.quantization.quantize_.workflows.float8.float8_tensor import Float8Tensor, QuantizeTensorToFloat8Kwargs

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# [out, in]: whole blocks, short last blocks, odd counts, less than one block, and blocks across rows.
SHAPES = [(64, 128), (5, 7), (3, 33), (1, 1), (1, 64), (13, 100), (3, 96), (5, 48), (300, 257)]


def weight_of(shape, dtype, generator):
    """Rows of very different sizes, one of zeros, and a stretch of zeros over several blocks."""
    weight = torch.randn(shape, generator=generator) * torch.logspace(-3, 1, shape[0]).unsqueeze(1)
    if shape[0] > 4:
        weight[2] = 0
    if shape[0] > 100:
        weight[50:53] = 0
    return weight.to(dtype)


def decode4(packed, state):
    """bitsandbytes' portable kernel. Its AVX-512 one takes another block's scale where the columns are a multiple of
    16 and not of 64 (blocks that cross rows); elsewhere the two must agree."""
    absmax = state.absmax
    if state.nested:
        absmax = bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset
    portable = _dequantize_4bit_compute(packed.view(-1), absmax, state.code, state.blocksize, state.shape, state.dtype)
    if state.shape[-1] % 16 != 0 or state.shape[-1] % state.blocksize == 0:
        assert torch.equal(portable, bnb.dequantize_4bit(packed, state)), state.shape
    return portable


def module4(weight, bias, kind, nested):
    """The layer as transformers and diffusers make it, computing in the weight's dtype."""
    layer = bitsandbytes.nn.Linear4bit(weight.shape[1], weight.shape[0], compute_dtype=weight.dtype,
                                       compress_statistics=nested, quant_type=kind)
    layer.weight = bitsandbytes.nn.Params4bit(weight, requires_grad=False, compress_statistics=nested,
                                              quant_type=kind, module=layer)
    layer.bias = torch.nn.Parameter(bias.clone(), requires_grad=False)
    return layer.to("cpu").eval()


def bnb4_cases():
    out = {}
    generator = torch.Generator().manual_seed(1)
    for dtype_name, dtype in DTYPES.items():
        for index, shape in enumerate(SHAPES):
            weight = weight_of(shape, dtype, generator)
            x = torch.randn(2, 3, shape[1], generator=generator).to(dtype)
            bias = torch.randn(shape[0], generator=generator).to(dtype)
            for kind in ("nf4", "fp4"):
                for nested in (False, True):
                    packed, state = bnb.quantize_4bit(weight, quant_type=kind, compress_statistics=nested)
                    key = f"{kind}{'_dq' if nested else ''}/{dtype_name}/{index}/"
                    out[key + "weight"], out[key + "x"], out[key + "bias"] = weight, x, bias
                    out[key + "part0"], out[key + "part1"] = packed.view(-1), state.absmax
                    if nested:
                        out[key + "part2"], out[key + "part3"] = state.state2.absmax, state.state2.code
                        out[key + "part4"] = state.offset.view(1)
                    decoded = decode4(packed, state)
                    out[key + "decoded"] = decoded
                    if index == 0:
                        out[key + "y_module"] = module4(weight, bias, kind, nested)(x)
                    # matmul_4bit decodes with the kernel above; its own sum where that one can be trusted.
                    if shape[1] % 16 != 0 or shape[1] % 64 == 0:
                        out[key + "y"] = bitsandbytes.matmul_4bit(x, packed, state, bias=bias)
                        out[key + "y_plain"] = bitsandbytes.matmul_4bit(x, packed, state)
                    else:
                        out[key + "y"] = torch.nn.functional.linear(x, decoded, bias)
                        out[key + "y_plain"] = torch.nn.functional.linear(x, decoded)
    return out


def activations(shape, dtype, generator):
    """Tokens with real outliers: two columns far above the threshold of 6, one in a single token."""
    x = torch.randn(*shape, generator=generator)
    if shape[-1] > 4:
        x[..., 1] *= 20
        x[..., 3] *= 9
        x[0, 0, 4] = -50
    x[0, -1] = 0
    return x.to(dtype)


def bnb8_cases():
    out = {}
    generator = torch.Generator().manual_seed(2)
    for dtype_name, dtype in DTYPES.items():
        for index, shape in enumerate(SHAPES):
            weight = weight_of(shape, dtype, generator)
            bias = torch.randn(shape[0], generator=generator).to(dtype)
            x = activations((2, 9, shape[1]), dtype, generator)
            key = f"int8/{dtype_name}/{index}/"
            layer = bitsandbytes.nn.Linear8bitLt(shape[1], shape[0], has_fp16_weights=False, threshold=6.0)
            layer.weight = bitsandbytes.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
            layer.bias = torch.nn.Parameter(bias, requires_grad=False)
            layer = layer.to("cpu").eval()
            out[key + "weight"], out[key + "x"], out[key + "bias"] = weight, x, bias
            out[key + "part0"], out[key + "part1"] = layer.weight.CB.clone(), layer.weight.SCB.clone()
            decoded = bnb.int8_vectorwise_dequant(layer.weight.CB, layer.weight.SCB)
            out[key + "decoded"] = decoded.to(dtype)
            out[key + "y"] = layer(x.clone())
            layer.state.threshold = 0.0
            out[key + "y_threshold0"] = layer(x.clone())
            layer.state.threshold = 6.0
            out[key + "y_one_token"] = layer(x[:1, :1].clone())
            layer.bias = None
            out[key + "y_plain"] = layer(x.clone())
    return out


def torchao_cases():
    out = {}
    generator = torch.Generator().manual_seed(3)
    for dtype_name, dtype in DTYPES.items():
        for index, shape in enumerate(SHAPES):
            if shape[1] == 1:
                continue  # torchao cannot quantize activations of one column
            weight = weight_of(shape, dtype, generator)
            bias = torch.randn(shape[0], generator=generator).to(dtype)
            x = activations((2, 9, shape[1]), dtype, generator)
            for scheme, config in (("int8wo", Int8WeightOnlyConfig()),
                                   ("int8dyn", Int8DynamicActivationInt8WeightConfig()),
                                   ("fp8wo", Float8WeightOnlyConfig()), ("fp8dyn", None)):
                key = f"{scheme}/{dtype_name}/{index}/"
                layer = torch.nn.Linear(shape[1], shape[0], dtype=dtype)
                layer.weight = torch.nn.Parameter(weight.clone(), requires_grad=False)
                layer.bias = torch.nn.Parameter(bias, requires_grad=False)
                if scheme.startswith("fp8"):
                    # torchao makes NaN of a row of zeros.
                    layer.weight[weight.abs().amax(1) == 0] = 0.5
                    weight_used = layer.weight.detach().clone()
                else:
                    weight_used = weight
                if scheme == "fp8dyn":
                    # Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()) refuses a CPU; this is the tensor
                    # it makes. Its _scaled_mm takes no row scales on the CPU, so the product is written out below.
                    quantized = Float8Tensor.from_hp(
                        weight_used, granularity=PerRow(), mm_config=Float8MMConfig(use_fast_accum=True),
                        act_quant_kwargs=QuantizeTensorToFloat8Kwargs(torch.float8_e4m3fn, PerRow()))
                else:
                    quantize_(layer, config)
                    quantized = layer.weight
                out[key + "weight"], out[key + "x"], out[key + "bias"] = weight_used, x, bias
                out[key + "part0"], out[key + "part1"] = quantized.qdata, quantized.scale.view(-1)
                out[key + "decoded"] = quantized.dequantize()
                if scheme == "fp8dyn":
                    # A token of zeros would be NaN to torchao.
                    x = x.clone()
                    x[0, -1] = 1
                    out[key + "x"] = x
                    tokens = Float8Tensor.from_hp(x.reshape(-1, shape[1]), granularity=PerRow())
                    y = tokens.qdata.double() @ quantized.qdata.double().t()
                    y = y * tokens.scale.double() * quantized.scale.double().t()
                    out[key + "y_plain"] = y.to(dtype).view(2, 9, shape[0])
                    out[key + "y"] = (y + bias.double()).to(dtype).view(2, 9, shape[0])
                else:
                    out[key + "y"] = layer(x)
                    layer.bias = None
                    out[key + "y_plain"] = layer(x)
    return out


def tiny_models():
    from diffusers import LTXVideoTransformer3DModel
    from transformers import T5Config, T5EncoderModel
    torch.manual_seed(4)
    t5 = T5EncoderModel(T5Config(vocab_size=40, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4,
                                 feed_forward_proj="gated-gelu"))
    ltx = LTXVideoTransformer3DModel(in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=32,
                                     cross_attention_dim=64, num_layers=2, caption_channels=48)
    return {"t5": t5, "ltx": ltx}


def save_serialized(folder):
    """Saved, loaded with a BitsAndBytesConfig, and saved again."""
    import diffusers
    import transformers
    from diffusers.quantizers.bitsandbytes import bnb_quantizer
    # diffusers wants a GPU before it quantizes; everything it then calls runs on the CPU.
    for quantizer in (bnb_quantizer.BnB4BitDiffusersQuantizer, bnb_quantizer.BnB8BitDiffusersQuantizer):
        quantizer.validate_environment = lambda self, *args, **kwargs: None
        quantizer.update_device_map = lambda self, device_map: {"": "cpu"}
    options = {
        "nf4": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
        "fp4_dq": dict(load_in_4bit=True, bnb_4bit_quant_type="fp4", bnb_4bit_use_double_quant=True),
        "nf4_dq": dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
        "fp4": dict(load_in_4bit=True, bnb_4bit_quant_type="fp4"),
        "int8": dict(load_in_8bit=True, llm_int8_threshold=5.0),
    }
    for model_name, model in tiny_models().items():
        plain = os.path.join(folder, f"plain_{model_name}")
        model.save_pretrained(plain)
        library = transformers if model_name == "t5" else diffusers
        for scheme, option in options.items():
            path = os.path.join(folder, f"serialized_{model_name}_{scheme}")
            loaded = type(model).from_pretrained(
                plain, quantization_config=library.BitsAndBytesConfig(**option),
                **{"dtype" if model_name == "t5" else "torch_dtype": torch.float32})
            loaded.save_pretrained(path)
            decoded = {}
            for name, module in loaded.named_modules():
                if isinstance(module, bitsandbytes.nn.Linear4bit):
                    decoded[name] = decode4(module.weight.data, module.weight.quant_state)
                elif isinstance(module, bitsandbytes.nn.Linear8bitLt):
                    decoded[name] = bnb.int8_vectorwise_dequant(module.weight.CB, module.weight.SCB)
            assert decoded, path
            save_file({key: value.contiguous() for key, value in decoded.items()},
                      os.path.join(path, "decoded.safetensors"))


def main(folder):
    torch.set_num_threads(1)
    with torch.no_grad():
        for name, cases in (("bnb4", bnb4_cases), ("bnb8", bnb8_cases), ("torchao", torchao_cases)):
            save_file({key: value.detach().clone().contiguous() for key, value in cases().items()},
                      os.path.join(folder, f"{name}.safetensors"))
        save_serialized(folder)


if __name__ == "__main__":
    main(sys.argv[1])
