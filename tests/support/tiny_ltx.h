// A random LTX-Video transformer small enough for any test, written as a component folder. No
// torch.
#pragma once

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace kino::testing {

struct TinyLtx {
  int heads = 2;
  int head_dim = 16;
  int layers = 3;
  int channels = 8;
  int caption = 24;
  unsigned seed = 1;

  int width() const { return heads * head_dim; }

  std::string Config() const {
    return R"({"_class_name":"LTXVideoTransformer3DModel","in_channels":)" +
           std::to_string(channels) + ",\"out_channels\":" + std::to_string(channels) +
           ",\"num_attention_heads\":" + std::to_string(heads) +
           ",\"attention_head_dim\":" + std::to_string(head_dim) +
           ",\"cross_attention_dim\":" + std::to_string(width()) +
           ",\"num_layers\":" + std::to_string(layers) +
           ",\"caption_channels\":" + std::to_string(caption) + "}";
  }

  std::vector<FloatTensor> Tensors() const {
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal;
    std::vector<FloatTensor> tensors;
    const auto add = [&](const std::string& name, std::vector<int64_t> shape, float centre,
                         float spread) {
      int64_t count = 1;
      for (const int64_t extent : shape) count *= extent;
      FloatTensor tensor{name, std::move(shape), std::vector<float>(static_cast<size_t>(count))};
      for (float& value : tensor.values) value = centre + spread * normal(engine);
      tensors.push_back(std::move(tensor));
    };
    const auto linear = [&](const std::string& name, int in, int out) {
      add(name + ".weight", {out, in}, 0, 1.0f / std::sqrt(static_cast<float>(in)));
      add(name + ".bias", {out}, 0, 0.05f);
    };
    const int d = width();
    linear("proj_in", channels, d);
    linear("proj_out", d, channels);
    add("scale_shift_table", {2, d}, 0, 0.2f);
    linear("time_embed.emb.timestep_embedder.linear_1", 256, d);
    linear("time_embed.emb.timestep_embedder.linear_2", d, d);
    linear("time_embed.linear", d, 6 * d);
    linear("caption_projection.linear_1", caption, d);
    linear("caption_projection.linear_2", d, d);
    for (int i = 0; i < layers; ++i) {
      const std::string block = "transformer_blocks." + std::to_string(i) + ".";
      add(block + "scale_shift_table", {6, d}, 0, 0.2f);
      for (const char* attention : {"attn1", "attn2"}) {
        const std::string scope = block + attention + ".";
        for (const char* name : {"to_q", "to_k", "to_v", "to_out.0"}) linear(scope + name, d, d);
        add(scope + "norm_q.weight", {d}, 1, 0.1f);
        add(scope + "norm_k.weight", {d}, 1, 0.1f);
      }
      linear(block + "ff.net.0.proj", d, 4 * d);
      linear(block + "ff.net.2", 4 * d, d);
    }
    return tensors;
  }

  // Writes config.json and the weights into `folder`.
  void Write(const TempDir& folder, const std::vector<FloatTensor>& tensors) const {
    folder.Write("config.json", Config());
    folder.Write("diffusion_pytorch_model.safetensors", SafetensorsOf(tensors));
  }
  void Write(const TempDir& folder) const { Write(folder, Tensors()); }
};

}  // namespace kino::testing
