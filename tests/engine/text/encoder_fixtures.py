#!/usr/bin/env python3
"""Writes small random text and vision encoders, and what transformers computes with them.

Usage: encoder_fixtures.py OUT SEED
OUT/NAME/ is a component as published; OUT/NAME/cases.safetensors holds what went in and what came out, in float32 and, where
the name ends in _bfloat16, in that.
"""
import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"

import gguf
import numpy as np
import torch
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_image2video import _expand_input_ids_with_image_tokens
from safetensors.torch import load_file, save_file
from transformers import (CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, LlamaConfig, LlamaForCausalLM, LlamaModel, LlavaConfig,
                          LlavaForConditionalGeneration, SiglipVisionConfig, SiglipVisionModel)

SKIPPED = 2  # diffusers' num_hidden_layers_to_skip
PAD, IMAGE = 3, 5
LENGTHS = (1, 2, 11, 37)

LLAMA = dict(vocab_size=97, hidden_size=48, intermediate_size=56, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=2,
             rms_norm_eps=1e-5, max_position_embeddings=64, pad_token_id=PAD, bos_token_id=0, eos_token_id=1)
THETA = {"rope_type": "default", "rope_theta": 500000.0}
LLAMAS = {
    "llama": LLAMA | dict(rope_parameters=THETA),
    # One head of keys, heads that do not fill the width, biases; odd numbers of everything.
    "llama_odd": dict(LLAMA, hidden_size=45, intermediate_size=51, num_hidden_layers=5, num_attention_heads=3, num_key_value_heads=1,
                      head_dim=10, attention_bias=True, mlp_bias=True, rms_norm_eps=1e-3, rope_parameters=THETA),
    "llama_all_heads": dict(LLAMA, num_key_value_heads=None, num_hidden_layers=3,
                            rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
    "llama_linear": LLAMA | dict(rope_parameters={"rope_type": "linear", "factor": 2.5, "rope_theta": 10000.0}),
    # Waves of 2 pi to 2 pi 500000^(2/3): on both sides of the bounds, 16 and 64, and between them.
    "llama_llama3": LLAMA | dict(head_dim=16, rope_parameters={
        "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64}, max_position_embeddings=512),
    # No layer is left.
    "llama_of_two": dict(LLAMA, num_hidden_layers=2, rope_parameters=THETA),
    # Widths that come in whole blocks of quantized formats.
    "llama_wide": dict(LLAMA, hidden_size=128, intermediate_size=192, num_attention_heads=4, num_key_value_heads=2,
                       rope_parameters=THETA),
}


def randomize(model, generator):
    """Weights that keep the states' scale, and no zero or one that could hide a mistake."""
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if "embedding" in name or "embed_tokens" in name:
                parameter.copy_(noise)
            elif parameter.ndim > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.2 * noise)
            else:
                parameter.copy_(0.3 * noise)
    return model.eval()


def folder(out, name):
    path = os.path.join(out, name)
    os.makedirs(path, exist_ok=True)
    return path


def save(model, path, cases, rename=None):
    model.save_pretrained(path)
    if rename is not None:
        weights = load_file(os.path.join(path, "model.safetensors"))
        save_file({rename(key): value for key, value in weights.items()}, os.path.join(path, "model.safetensors"),
                  metadata={"format": "pt"})
    save_file({key: value.contiguous() for key, value in cases.items()}, os.path.join(path, "cases.safetensors"))


def text_ids(generator, length, low, vocabulary):
    return torch.randint(low, vocabulary, (1, length), generator=generator)


PRODUCTS = ("linear", "conv2d", "scaled_dot_product_attention")


def rounded_once(product):
    """Such a product in float32, rounded to bfloat16: torch's own kernels round sums inside, each CPU's in another way."""
    def of(*arguments, **options):
        as_float = lambda x: x.float() if isinstance(x, torch.Tensor) and x.dtype == torch.bfloat16 else x
        result = product(*map(as_float, arguments), **{key: as_float(value) for key, value in options.items()})
        return result.to(torch.bfloat16)

    return of


def in_bfloat16(model, run):
    """What `run` gives with the weights in bfloat16, as from_pretrained loads them: rotary frequencies stay float32."""
    weights = [(parameter, parameter.data) for parameter in model.parameters()]
    products = {name: getattr(torch.nn.functional, name) for name in PRODUCTS}
    for parameter, value in weights:
        parameter.data = value.to(torch.bfloat16)
    for name, product in products.items():
        setattr(torch.nn.functional, name, rounded_once(product))
    result = run()
    for name, product in products.items():
        setattr(torch.nn.functional, name, product)
    for parameter, value in weights:
        parameter.data = value
    return result


def llama_cases(model, vocabulary, generator):
    """Prompts padded on the right and masked, as the pipelines pass them."""
    prompts = [text_ids(generator, length, PAD + 1, vocabulary) for length in LENGTHS]
    longest = max(LENGTHS) + 3
    ids = torch.full((len(prompts), longest), PAD)
    for row, prompt in enumerate(prompts):
        ids[row, : prompt.shape[1]] = prompt
    mask = (ids != PAD).long()

    def states():
        return model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-(SKIPPED + 1)]

    cases = {}
    for suffix, hidden in (("", states()), ("_bfloat16", in_bfloat16(model, states))):
        for row, prompt in enumerate(prompts):
            cases[f"ids_{row}"] = prompt
            cases[f"states_{row}{suffix}"] = hidden[row : row + 1, : prompt.shape[1]]
    return cases


def llamas(out, generator):
    for name, values in LLAMAS.items():
        model = randomize(LlamaModel(LlamaConfig(**values)), generator)
        cases = llama_cases(model, values["vocab_size"], generator)
        save(model, folder(out, name), cases)
        if name == "llama":
            # The same weights in a model with a head.
            whole = randomize(LlamaForCausalLM(LlamaConfig(**values)), generator)
            whole.model.load_state_dict(model.state_dict())
            save(whole, folder(out, "llama_causal"), cases)
            weights = {"model." + key: value for key, value in model.state_dict().items()} | {"lm_head.weight": whole.lm_head.weight}
            # As conversions of before transformers 4.32 have them.
            weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
            save_file(weights, os.path.join(folder(out, "llama_single"), "llama.safetensors"))
        if name == "llama_wide":
            write_gguf(out, model, values, cases, generator)


def permuted(weight, heads):
    """As llama.cpp's convert_hf_to_gguf.py stores q and k."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


GGUF_NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
              "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
              "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def write_gguf(out, model, values, cases, generator):
    """llama.gguf in float32 and llama_q8.gguf with matrices in Q8_0; the latter's cases are of the weights as it has them."""
    heads, keys = values["num_attention_heads"], values["num_key_value_heads"]
    for name, kind in (("gguf", None), ("gguf_q8", gguf.GGMLQuantizationType.Q8_0)):
        path = folder(out, name)
        writer = gguf.GGUFWriter(os.path.join(path, "llama.gguf"), "llama")
        writer.add_block_count(values["num_hidden_layers"])
        writer.add_head_count(heads)
        writer.add_head_count_kv(keys)
        writer.add_rope_dimension_count(values["hidden_size"] // heads)
        writer.add_rope_freq_base(values["rope_parameters"]["rope_theta"])
        writer.add_layer_norm_rms_eps(values["rms_norm_eps"])
        for key, value in model.state_dict().items():
            data = value.numpy().copy()
            if key.startswith("layers."):
                _, layer, inner = key.removesuffix(".weight").split(".", 2)
                if inner.endswith(("q_proj", "k_proj")):
                    data = permuted(data, heads if inner.endswith("q_proj") else keys)
                stored = f"blk.{layer}.{GGUF_NAMES[inner]}.weight"
            else:
                stored = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}[key]
            if kind is not None and data.ndim == 2:
                packed = gguf.quants.quantize(data, kind)
                decoded = gguf.quants.dequantize(packed, kind)
                if key.endswith(("q_proj.weight", "k_proj.weight")):
                    count = heads if "q_proj" in key else keys
                    rows = permuted(np.arange(decoded.shape[0]), count)
                    decoded = decoded[np.argsort(rows)]
                value.copy_(torch.from_numpy(np.ascontiguousarray(decoded)))
                writer.add_tensor(stored, packed, raw_dtype=kind)
            else:
                writer.add_tensor(stored, data)
        head = torch.randn(values["vocab_size"], values["hidden_size"], generator=generator)
        writer.add_tensor("output.weight", head.numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        if kind is not None:
            cases = llama_cases(model, values["vocab_size"], generator)
        save_file({key: value.contiguous() for key, value in cases.items()}, os.path.join(path, "cases.safetensors"))


def llavas(out, generator):
    vision = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3, image_size=28, patch_size=7,
                  hidden_act="quick_gelu", layer_norm_eps=1e-5)
    text = LLAMA | dict(rope_parameters=THETA, model_type="llama")
    for name, features in (("llava", {}), ("llava_full", dict(vision_feature_layer=2, vision_feature_select_strategy="full")),
                           ("llava_first", dict(vision_feature_layer=1, multimodal_projector_bias=False))):
        config = LlavaConfig(vision_config=CLIPVisionConfig(**vision), text_config=LlamaConfig(**text), image_token_index=IMAGE,
                             pad_token_id=PAD, **features)
        model = randomize(LlavaForConditionalGeneration(config), generator)
        cases = llava_cases(model, generator)
        save(model, folder(out, name), cases)
        if name != "llava":
            continue
        weights = load_file(os.path.join(out, name, "model.safetensors"))
        for age, rename in (("llava_4", as_transformers_4), ("llava_5", as_transformers_5)):
            model.config.save_pretrained(folder(out, age))
            save_file({rename(key): value for key, value in weights.items()}, os.path.join(out, age, "model.safetensors"))


def bare_llava_name(key):
    """model.language_model.X, model.vision_tower.X, model.multi_modal_projector.X, lm_head.X"""
    for old, new in (("language_model.model.", "model.language_model."), ("language_model.lm_head.", "lm_head."),
                     ("vision_tower.vision_model.", "model.vision_tower."), ("model.vision_tower.vision_model.", "model.vision_tower."),
                     ("vision_tower.", "model.vision_tower."),
                     ("multi_modal_projector.", "model.multi_modal_projector.")):
        if key.startswith(old):
            return new + key[len(old) :]
    return key


def as_transformers_4(key):
    key = bare_llava_name(key)
    for new, old in (("model.language_model.", "language_model.model."), ("lm_head.", "language_model.lm_head."),
                     ("model.vision_tower.", "vision_tower.vision_model."), ("model.multi_modal_projector.", "multi_modal_projector.")):
        if key.startswith(new):
            return old + key[len(new) :]
    raise ValueError(key)


def as_transformers_5(key):
    return bare_llava_name(key)


def llava_cases(model, generator):
    tokens = 16 if model.config.vision_feature_select_strategy == "default" else 17
    start, longest = 4, 20
    cases = {}
    for row, length in enumerate((9, 20)):
        ids = text_ids(generator, length, IMAGE + 1, LLAMA["vocab_size"])
        ids[0, start] = IMAGE
        padded = torch.full((1, longest), PAD)
        padded[:, :length] = ids
        pixels = torch.randn(1, 3, 28, 28, generator=generator)
        inputs = _expand_input_ids_with_image_tokens(padded, (padded != PAD).long(), longest, IMAGE, tokens, start, start + tokens, PAD)
        kept = inputs["attention_mask"][0].bool()

        def run():
            features = model.get_image_features(pixel_values=pixels.to(model.dtype),
                                                vision_feature_layer=model.config.vision_feature_layer,
                                                vision_feature_select_strategy=model.config.vision_feature_select_strategy)
            states = model(**inputs, pixel_values=pixels.to(model.dtype), output_hidden_states=True).hidden_states
            return features.pooler_output[0][None], states[-(SKIPPED + 1)][:, kept]

        for suffix, (features, states) in (("", run()), ("_bfloat16", in_bfloat16(model, run))):
            cases |= {f"ids_{row}": inputs["input_ids"][:, kept], f"pixels_{row}": pixels, f"features_{row}{suffix}": features,
                      f"states_{row}{suffix}": states}
    return cases


def siglip(out, generator):
    # 29 is no multiple of 8: the last pixels are not seen.
    config = SiglipVisionConfig(hidden_size=36, intermediate_size=50, num_hidden_layers=3, num_attention_heads=3, image_size=29,
                                patch_size=8)
    model = randomize(SiglipVisionModel(config), generator)
    cases = {}
    for row in range(2):
        pixels = torch.randn(1, 3, 29, 29, generator=generator)
        run = lambda: model(pixels.to(model.dtype)).last_hidden_state
        cases |= {f"pixels_{row}": pixels, f"features_{row}": run(), f"features_{row}_bfloat16": in_bfloat16(model, run)}
    bare = lambda key: key.removeprefix("vision_model.")
    save(model, folder(out, "siglip_4"), cases, lambda key: "vision_model." + bare(key))
    save(model, folder(out, "siglip_5"), cases, bare)


def clips(out, generator):
    base = dict(vocab_size=71, hidden_size=30, intermediate_size=44, num_hidden_layers=3, num_attention_heads=5,
                max_position_embeddings=19, bos_token_id=69, pad_token_id=1)
    for name, values in (("clip", base | dict(eos_token_id=2, hidden_act="quick_gelu")),
                         ("clip_eos", base | dict(eos_token_id=66, hidden_act="gelu", layer_norm_eps=1e-3)),
                         # Heads of 64 numbers, so that shapes tell all.
                         ("clip_heads", base | dict(eos_token_id=2, hidden_act="quick_gelu", hidden_size=128, num_attention_heads=2))):
        model = randomize(CLIPTextModel(CLIPTextConfig(**values)), generator)
        cases = {}
        # Padded with the end of text, as a tokenizer of CLIP does, and with the pad token; cut off; and without an end.
        end = 70 if values["eos_token_id"] == 2 else 66
        for row, (length, total, pad) in enumerate(((4, 19, end), (7, 12, 1), (19, 19, 1), (1, 1, 1))):
            ids = torch.full((1, total), pad)
            ids[:, :length] = text_ids(generator, length, 3, 60)
            if row < 3:
                ids[:, length - 1] = end
            run = lambda: model(ids).pooler_output
            cases |= {f"ids_{row}": ids, f"pooled_{row}": run(), f"pooled_{row}_bfloat16": in_bfloat16(model, run)}
        bare = lambda key: key.removeprefix("text_model.")
        save(model, folder(out, f"{name}_5"), cases, bare)
        save(model, folder(out, f"{name}_4"), cases, lambda key: "text_model." + bare(key))
        weights = {f"text_encoders.clip_l.transformer.text_model.{bare(key)}": value for key, value in model.state_dict().items()}
        weights["text_encoders.clip_l.transformer.text_projection.weight"] = torch.ones(2, 2)
        weights["text_encoders.clip_l.logit_scale"] = torch.ones(())
        weights["text_encoders.clip_l.transformer.text_model.embeddings.position_ids"] = torch.arange(19)[None]
        save_file(weights, os.path.join(folder(out, f"{name}_single"), "clip.safetensors"))


def main():
    out, seed = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        llamas(out, generator)
        llavas(out, generator)
        siglip(out, generator)
        clips(out, generator)


main()
