// The published models' configs, as far as they differ from the defaults of diffusers' classes.
#pragma once

#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/bare_model.h"

namespace kino::testing {

struct PublishedModel {
  std::string config;      // its file in config/models, without .yaml
  std::string generation;  // as a description tells it
  BareModel model;
};
inline void PrintTo(const PublishedModel& model, std::ostream* out) { *out << model.config; }

inline std::vector<PublishedModel> PublishedModels() {
  using Json = nlohmann::json;
  const auto with = [](Json base, const Json& more) {
    base.update(more);
    return base;
  };
  const Json vae_091 = {{"decoder_block_out_channels", {256, 512, 1024}},
                        {"decoder_layers_per_block", {5, 6, 7, 8}},
                        {"decoder_spatio_temporal_scaling", {true, true, true}},
                        {"decoder_inject_noise", {true, true, true, false}},
                        {"upsample_residual", {true, true, true}},
                        {"upsample_factor", {2, 2, 2}},
                        {"timestep_conditioning", true}};
  const Json vae_095 = with(
      vae_091, {{"block_out_channels", {128, 256, 512, 1024, 2048}},
                {"down_block_types", std::vector<std::string>(4, "LTXVideo095DownBlock3D")},
                {"spatio_temporal_scaling", {true, true, true, true}},
                {"layers_per_block", {4, 6, 6, 2, 2}},
                {"downsample_type", {"spatial", "temporal", "spatiotemporal", "spatiotemporal"}},
                {"decoder_layers_per_block", {5, 5, 5, 5}},
                {"decoder_inject_noise", {false, false, false, false}},
                {"spatial_compression_ratio", 32},
                {"temporal_compression_ratio", 8}});
  const Json ltx_13b = {
      {"num_layers", 48}, {"attention_head_dim", 128}, {"cross_attention_dim", 4096}};
  const auto ltx = [](const char* pipeline_class, const Json& vae, const Json& transformer) {
    return BareModel{.pipeline_class = pipeline_class, .transformer = transformer, .vae = vae};
  };
  const Json none = Json::object();
  const Json cog_5b = {
      {"num_layers", 42}, {"num_attention_heads", 48}, {"use_rotary_positional_embeddings", true}};
  const Json cog_15 = with(cog_5b, {{"patch_size_t", 2},
                                    {"patch_bias", false},
                                    {"sample_height", 300},
                                    {"sample_width", 300},
                                    {"sample_frames", 81}});
  const Json sees = {{"in_channels", 32}};
  const auto cog = [](const Json& transformer, const char* task = "") {
    return BareModel{.pipeline_class = std::string("CogVideoX") + task + "Pipeline",
                     .transformer = transformer,
                     .scheduler = {{"prediction_type", "v_prediction"}}};
  };
  const char* const condition = "LTXConditionPipeline";
  return {
      {"ltx-0.9.0", "LTX-Video 0.9.0", ltx("LTXPipeline", none, none)},
      {"ltx-0.9.1", "LTX-Video 0.9.1", ltx("LTXPipeline", vae_091, none)},
      {"ltx-0.9.5", "LTX-Video 2B 0.9.5 or later", ltx(condition, vae_095, none)},
      {"ltx-0.9.7-dev", "LTX-Video 13B 0.9.7 or later", ltx(condition, vae_095, ltx_13b)},
      {"ltx-0.9.7-distilled", "LTX-Video 13B 0.9.7 or later", ltx(condition, vae_095, ltx_13b)},
      {"ltx-0.9.8-13b-distilled", "LTX-Video 13B 0.9.7 or later", ltx(condition, vae_095, ltx_13b)},
      {"mochi", "Mochi 1 preview", {.pipeline_class = "MochiPipeline"}},
      {"allegro",
       "Allegro",
       {.pipeline_class = "AllegroPipeline", .scheduler = {{"beta_schedule", "linear"}}}},
      {"cogvideox-2b", "CogVideoX-2b", cog(none)},
      {"cogvideox-5b", "CogVideoX-5b", cog(cog_5b)},
      {"cogvideox-5b-i2v", "CogVideoX-5b-I2V",
       cog(with(with(cog_5b, sees), {{"use_learned_positional_embeddings", true}}),
           "ImageToVideo")},
      {"cogvideox1.5-5b", "CogVideoX1.5-5B", cog(cog_15)},
      {"cogvideox1.5-5b-i2v", "CogVideoX1.5-5B-I2V",
       cog(with(with(cog_15, sees), {{"ofs_embed_dim", 512}}), "ImageToVideo")},
      // Their folders name the plain pipeline.
      {"cogvideox-fun-2b-pose", "CogVideoX-Fun-2b", cog(sees)},
      {"cogvideox-fun-2b-control", "CogVideoX-Fun-2b", cog(sees)},
      {"cogvideox-fun-5b-pose", "CogVideoX-Fun-5b", cog(with(cog_5b, sees))},
      {"cogvideox-fun-5b-control", "CogVideoX-Fun-5b", cog(with(cog_5b, sees))},
  };
}

}  // namespace kino::testing
