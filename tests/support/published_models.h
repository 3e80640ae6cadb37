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
  const Json llama = {
      {"architectures", {"LlamaModel"}}, {"vocab_size", 128320},    {"hidden_size", 4096},
      {"intermediate_size", 14336},      {"num_hidden_layers", 32}, {"num_attention_heads", 32},
      {"num_key_value_heads", 8},        {"rms_norm_eps", 1e-5},    {"rope_theta", 500000.0}};
  const Json llava = {{"architectures", {"LlavaForConditionalGeneration"}},
                      {"model_type", "llava"},
                      {"image_token_index", 128257},
                      {"pad_token_id", 128258},
                      {"projector_hidden_act", "gelu"},
                      {"vision_feature_layer", -2},
                      {"vision_feature_select_strategy", "default"},
                      {"text_config", llama},
                      {"vision_config",
                       {{"hidden_size", 1024},
                        {"intermediate_size", 4096},
                        {"num_hidden_layers", 24},
                        {"num_attention_heads", 16},
                        {"image_size", 336},
                        {"patch_size", 14}}}};
  const Json clip = {{"architectures", {"CLIPTextModel"}},
                     {"vocab_size", 49408},
                     {"hidden_size", 768},
                     {"intermediate_size", 3072},
                     {"num_hidden_layers", 12},
                     {"num_attention_heads", 12},
                     {"eos_token_id", 2}};
  const Json siglip = {{"architectures", {"SiglipVisionModel"}},
                       {"model_type", "siglip_vision_model"},
                       {"hidden_size", 1152},
                       {"intermediate_size", 4304},
                       {"num_hidden_layers", 27},
                       {"num_attention_heads", 16},
                       {"image_size", 384},
                       {"patch_size", 14}};
  // SkyReels-V1's and FramePack's are transformers for HunyuanVideo's folder.
  const auto hunyuan = [&](const Json& transformer, double shift = 7.0, bool packs = false) {
    BareModel model{.pipeline_class = "HunyuanVideoPipeline",
                    .transformer = transformer,
                    .scheduler = {{"shift", shift}},
                    .encoders = {{"text_encoder", llama}, {"text_encoder_2", clip}}};
    if (packs) {
      model.encoders["image_encoder"] = siglip;
      model.files["feature_extractor/preprocessor_config.json"] = {
          {"image_processor_type", "SiglipImageProcessor"},
          {"size", {{"height", 384}, {"width", 384}}}};
    }
    return model;
  };
  const auto hunyuan_i2v = [&](const Json& transformer) {
    return BareModel{.pipeline_class = "HunyuanVideoImageToVideoPipeline",
                     .transformer = transformer,
                     .scheduler = {{"shift", 7.0}},
                     .encoders = {{"text_encoder", llava}, {"text_encoder_2", clip}},
                     .files = {{"image_processor/preprocessor_config.json",
                                {{"image_processor_type", "CLIPImageProcessor"},
                                 {"size", {{"shortest_edge", 336}}},
                                 {"crop_size", {{"height", 336}, {"width", 336}}}}}}};
  };
  const Json packed = {{"_class_name", "HunyuanVideoTransformer3DModelPacked"},
                       {"has_clean_x_embedder", true},
                       {"has_image_proj", true},
                       {"image_proj_dim", 1152}};
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
      {"hunyuan-video", "HunyuanVideo", hunyuan(none)},
      {"hunyuan-video-i2v", "HunyuanVideo-I2V",
       hunyuan_i2v({{"image_condition_type", "token_replace"}})},
      {"hunyuan-video-i2v-33ch", "HunyuanVideo-I2V-33ch",
       hunyuan_i2v({{"in_channels", 33},
                    {"image_condition_type", "latent_concat"},
                    {"guidance_embeds", false}})},
      // These differ from it in their weights alone.
      {"fast-hunyuan", "HunyuanVideo", hunyuan(none, 17.0)},
      {"skyreels-v1-t2v", "HunyuanVideo", hunyuan(none)},
      {"skyreels-v1-i2v", "SkyReels-V1-Hunyuan-I2V", hunyuan(sees)},
      {"framepack-i2v", "FramePack", hunyuan(packed, 7.0, true)},
      {"framepack-f1", "FramePack", hunyuan(packed, 7.0, true)},
  };
}

}  // namespace kino::testing
