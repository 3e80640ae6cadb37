#include "engine/models/ltx/generation.h"

#include <algorithm>

#include "engine/core/json.h"
#include "engine/models/ltx/transformer_config.h"
#include "engine/models/ltx/vae_config.h"

namespace kino::engine {

std::string LtxGeneration(const ModelSource& source) {
  const auto transformer =
      LtxTransformerConfig::FromJson(source.transformer_config, source.transformer_config_path);
  const auto vae = ReadConfig<LtxVaeConfig>(source.folder + "/vae/config.json");
  if (!transformer.ok() || !vae.ok() || vae->latent_channels != 128 ||
      vae->spatial_compression_ratio != 32 || vae->temporal_compression_ratio != 8)
    return "";
  const int heads = transformer->num_attention_heads, head = transformer->attention_head_dim;
  const bool is_2b = transformer->num_layers == 28 && heads == 32 && head == 64;
  const bool is_13b = transformer->num_layers == 48 && heads == 32 && head == 128;
  const bool is_095 = std::any_of(
      vae->down_blocks.begin(), vae->down_blocks.end(), [](const LtxVaeDownBlock& block) {
        return block.downsample == LtxVaeDownBlock::Downsample::kSpaceToDepth;
      });
  if (is_095) {
    if (!vae->timestep_conditioning) return "";
    return is_2b ? "LTX-Video 2B 0.9.5 or later" : is_13b ? "LTX-Video 13B 0.9.7 or later" : "";
  }
  if (!is_2b || vae->timestep_conditioning != vae->InjectsNoise()) return "";
  return vae->timestep_conditioning ? "LTX-Video 0.9.1" : "LTX-Video 0.9.0";
}

}  // namespace kino::engine
