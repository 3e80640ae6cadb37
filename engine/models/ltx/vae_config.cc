#include "engine/models/ltx/vae_config.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

constexpr char kBlock090[] = "LTXVideoDownBlock3D";
constexpr char kBlock095[] = "LTXVideo095DownBlock3D";
// Larger numbers in a config are a mistake, and would overflow sizes computed from them.
constexpr int kMaxChannels = 1 << 16;
constexpr int kMaxLayers = 256;

// The config's keys as they stand.
struct Keys {
  std::vector<int> block_out_channels;
  std::vector<std::string> down_block_types;
  std::vector<int> layers_per_block;
  std::vector<bool> spatio_temporal_scaling;
  std::vector<std::string> downsample_type;
  std::vector<int> decoder_block_out_channels;
  std::vector<int> decoder_layers_per_block;
  std::vector<bool> decoder_spatio_temporal_scaling;
  std::vector<bool> decoder_inject_noise;
  std::vector<bool> upsample_residual;
  std::vector<int> upsample_factor;
};

// The decoder's lists are read from their ends.
template <typename T>
T FromEnd(const std::vector<T>& list, size_t index) {
  return list[list.size() - 1 - index];
}

template <typename T>
absl::Status CheckLength(const std::string& where, const char* key, const std::vector<T>& list,
                         size_t needed) {
  if (list.size() >= needed) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(where, ": '", key, "' has ", list.size(), " entries, expected ", needed));
}

absl::Status CheckEach(const std::string& where, const char* key, const std::vector<int>& list,
                       int low, int high) {
  for (const int value : list) {
    if (value >= low && value <= high) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": '", key, "' has ", value, ", expected ", low, " to ", high));
  }
  return absl::OkStatus();
}

absl::StatusOr<Stride3d> StrideOf(const std::string& where, const std::string& type) {
  if (type == "spatial") return Stride3d{.t = 1, .h = 2, .w = 2};
  if (type == "temporal") return Stride3d{.t = 2, .h = 1, .w = 1};
  if (type == "conv" || type == "spatiotemporal") return Stride3d{.t = 2, .h = 2, .w = 2};
  return absl::InvalidArgumentError(
      absl::StrCat(where, ": 'downsample_type' has '", type,
                   "', expected 'conv', 'spatial', 'temporal' or 'spatiotemporal'"));
}

absl::StatusOr<LtxVaeDownBlock> ResolveDownBlock(const Keys& keys, const std::string& where,
                                                 size_t index, int in, int out) {
  LtxVaeDownBlock block;
  block.in_channels = in;
  block.out_channels = out;
  block.layers = keys.layers_per_block[index];
  const std::string& type = keys.down_block_types[index];
  const bool scales = keys.spatio_temporal_scaling[index];
  if (type == kBlock090) {
    if (scales) {
      block.downsample = LtxVaeDownBlock::Downsample::kStridedConv;
      block.stride = {.t = 2, .h = 2, .w = 2};
    }
    block.has_conv_out = in != out;
    return block;
  }
  if (type != kBlock095) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": 'down_block_types' has '", type,
                                                   "', expected '", kBlock090, "' or '", kBlock095,
                                                   "'"));
  }
  if (scales) {
    const std::string& downsample = keys.downsample_type[index];
    KINO_ASSIGN_OR_RETURN(block.stride, StrideOf(where, downsample));
    block.downsample = downsample == "conv" ? LtxVaeDownBlock::Downsample::kStridedConv
                                            : LtxVaeDownBlock::Downsample::kSpaceToDepth;
  }
  if (block.downsample == LtxVaeDownBlock::Downsample::kSpaceToDepth) {
    const int64_t product = block.stride.product();
    if (out % product != 0 || in * product % out != 0) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": down block ", index, " cannot turn ",
                                                     in, " channels into ", out, " by '",
                                                     keys.downsample_type[index], "'"));
    }
  } else if (in != out) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": down block ", index, " (", kBlock095,
                                                   ") has ", in, " channels in and ", out,
                                                   " out, but nothing that changes them"));
  }
  return block;
}

absl::Status ResolveEncoder(const Keys& keys, const std::string& where, LtxVaeConfig& config) {
  if (keys.block_out_channels.empty() || keys.down_block_types.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": 'block_out_channels' and 'down_block_types' must not be empty"));
  }
  const bool is_095 = keys.down_block_types.back() == kBlock095;
  const size_t blocks = keys.block_out_channels.size() - (is_095 ? 1 : 0);
  KINO_RETURN_IF_ERROR(CheckLength(where, "down_block_types", keys.down_block_types, blocks));
  KINO_RETURN_IF_ERROR(
      CheckLength(where, "spatio_temporal_scaling", keys.spatio_temporal_scaling, blocks));
  KINO_RETURN_IF_ERROR(CheckLength(where, "layers_per_block", keys.layers_per_block, blocks + 1));
  if (is_095)
    KINO_RETURN_IF_ERROR(CheckLength(where, "downsample_type", keys.downsample_type, blocks));
  int channels = keys.block_out_channels[0];
  config.encoder_channels = channels;
  for (size_t i = 0; i < blocks; ++i) {
    const int in = channels;
    // 0.9.0 counts the first entry as the first block's input and the last block keeps its
    // channels.
    channels = keys.block_out_channels[is_095 ? i + 1 : std::min(i + 1, blocks - 1)];
    KINO_ASSIGN_OR_RETURN(LtxVaeDownBlock block, ResolveDownBlock(keys, where, i, in, channels));
    config.down_blocks.push_back(block);
  }
  config.encoder_mid_layers = keys.layers_per_block.back();
  return absl::OkStatus();
}

absl::Status ResolveDecoder(const Keys& keys, const std::string& where, LtxVaeConfig& config) {
  const size_t blocks = keys.decoder_block_out_channels.size();
  if (blocks == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": 'decoder_block_out_channels' must not be empty"));
  }
  KINO_RETURN_IF_ERROR(
      CheckLength(where, "decoder_layers_per_block", keys.decoder_layers_per_block, blocks + 1));
  KINO_RETURN_IF_ERROR(CheckLength(where, "decoder_spatio_temporal_scaling",
                                   keys.decoder_spatio_temporal_scaling, blocks));
  KINO_RETURN_IF_ERROR(
      CheckLength(where, "decoder_inject_noise", keys.decoder_inject_noise, blocks + 1));
  KINO_RETURN_IF_ERROR(CheckLength(where, "upsample_residual", keys.upsample_residual, blocks));
  KINO_RETURN_IF_ERROR(CheckLength(where, "upsample_factor", keys.upsample_factor, blocks));
  int64_t channels = FromEnd(keys.decoder_block_out_channels, 0);
  config.decoder_channels = channels;
  config.decoder_mid_layers = FromEnd(keys.decoder_layers_per_block, 0);
  config.decoder_mid_inject_noise = FromEnd(keys.decoder_inject_noise, 0);
  for (size_t i = 0; i < blocks; ++i) {
    const int64_t factor = FromEnd(keys.upsample_factor, i);
    const int64_t in = channels / factor;
    const int64_t out = FromEnd(keys.decoder_block_out_channels, i) / factor;
    const bool upsamples = FromEnd(keys.decoder_spatio_temporal_scaling, i);
    const bool residual = FromEnd(keys.upsample_residual, i);
    const bool noise = FromEnd(keys.decoder_inject_noise, i + 1);
    const auto refuse = [&](const std::string& why) {
      return absl::InvalidArgumentError(
          absl::StrCat(where, ": up block ", i, " (", in, " channels in, ", out, " out): ", why));
    };
    if (in < 1 || out < 1) return refuse("no channels are left after 'upsample_factor'");
    if (in != out && (noise || config.timestep_conditioning)) {
      return refuse(
          "the channels cannot change where noise is injected or the decoder is conditioned on a "
          "timestep");
    }
    // The block's first resnet gives `out` channels, its upsampler takes `out` times the factor of
    // what arrives.
    const int64_t arriving = in != out ? out : channels;
    if (upsamples && arriving != out * factor) {
      return refuse(
          absl::StrCat("the upsampler takes ", out * factor, " channels and gets ", arriving));
    }
    if (!upsamples && arriving != out)
      return refuse(absl::StrCat("its resnets get ", arriving, " channels"));
    if (in != out && in != channels)
      return refuse(absl::StrCat("its first resnet gets ", channels, " channels"));
    if (upsamples && residual && (out * factor % 8 != 0 || 8 % factor != 0)) {
      return refuse("the upsampler's residual does not fit its channels");
    }
    config.up_blocks.push_back({.in_channels = in,
                                .out_channels = out,
                                .layers = FromEnd(keys.decoder_layers_per_block, i + 1),
                                .upsample = upsamples,
                                .upsample_residual = residual,
                                .upscale_factor = factor,
                                .inject_noise = noise});
    channels = out;
  }
  return absl::OkStatus();
}

absl::Status CheckRatios(const std::string& where, const LtxVaeConfig& config) {
  int64_t encoder_space = config.patch_size, encoder_time = 1;
  for (const LtxVaeDownBlock& block : config.down_blocks) {
    if (block.stride.h != block.stride.w)
      return absl::InternalError("downsampling is the same in height and width");
    encoder_space *= block.stride.h;
    encoder_time *= block.stride.t;
  }
  int64_t decoder_space = config.patch_size, decoder_time = 1;
  for (const LtxVaeUpBlock& block : config.up_blocks) {
    decoder_space *= block.upsample ? 2 : 1;
    decoder_time *= block.upsample ? 2 : 1;
  }
  const int64_t space = config.spatial_compression_ratio, time = config.temporal_compression_ratio;
  if (encoder_space == space && decoder_space == space && encoder_time == time &&
      decoder_time == time) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(where, ": compression ratios are ", space, " in space and ", time,
                   " in time, but the encoder's blocks give ", encoder_space, " and ", encoder_time,
                   ", the decoder's ", decoder_space, " and ", decoder_time));
}

}  // namespace

bool LtxVaeConfig::InjectsNoise() const {
  return decoder_mid_inject_noise ||
         std::any_of(up_blocks.begin(), up_blocks.end(),
                     [](const LtxVaeUpBlock& block) { return block.inject_noise; });
}

absl::Status CheckWholeTiles(const VaeTiling& tiling, int64_t spatial_ratio,
                             int64_t temporal_ratio) {
  const VaeTileSizes sizes = kLtxTiles.With(tiling);
  const std::optional<TimeTiles> in_time = kLtxTiles.InTime(tiling);
  if (sizes.min_height % spatial_ratio == 0 && sizes.min_width % spatial_ratio == 0 &&
      sizes.stride_height % spatial_ratio == 0 && sizes.stride_width % spatial_ratio == 0 &&
      (!in_time ||
       (in_time->frames % temporal_ratio == 0 && in_time->stride % temporal_ratio == 0))) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "to encode, or to decode a video in windows (temporal_tile_size), tiles and their strides "
      "must be multiples of ",
      spatial_ratio, " pixels and ", temporal_ratio, " frames"));
}

absl::StatusOr<LtxVaeConfig> LtxVaeConfig::FromJson(const nlohmann::json& json,
                                                    const std::string& where) {
  ConfigReader reader(json, where);
  LtxVaeConfig config;
  config.in_channels = reader.Get("in_channels", 3);
  config.out_channels = reader.Get("out_channels", 3);
  config.latent_channels = reader.Get("latent_channels", 128);
  config.patch_size = reader.Get("patch_size", 4);
  const int patch_size_t = reader.Get("patch_size_t", 1);
  config.resnet_norm_eps = reader.Get("resnet_norm_eps", 1e-6);
  config.scaling_factor = reader.Get("scaling_factor", 1.0);
  config.encoder_causal = reader.Get("encoder_causal", true);
  config.decoder_causal = reader.Get("decoder_causal", false);
  config.timestep_conditioning = reader.Get("timestep_conditioning", false);

  const std::vector<int> channels = {128, 256, 512, 512}, layers = {4, 3, 3, 3, 4};
  const std::vector<bool> scaling = {true, true, true, false};
  Keys keys;
  keys.block_out_channels = reader.Get("block_out_channels", channels);
  keys.down_block_types = reader.Get("down_block_types", std::vector<std::string>(4, kBlock090));
  keys.layers_per_block = reader.Get("layers_per_block", layers);
  keys.spatio_temporal_scaling = reader.Get("spatio_temporal_scaling", scaling);
  keys.downsample_type = reader.Get("downsample_type", std::vector<std::string>(4, "conv"));
  keys.decoder_block_out_channels = reader.Get("decoder_block_out_channels", channels);
  keys.decoder_layers_per_block = reader.Get("decoder_layers_per_block", layers);
  keys.decoder_spatio_temporal_scaling = reader.Get("decoder_spatio_temporal_scaling", scaling);
  keys.decoder_inject_noise = reader.Get("decoder_inject_noise", std::vector<bool>(5, false));
  keys.upsample_residual = reader.Get("upsample_residual", std::vector<bool>(4, false));
  keys.upsample_factor = reader.Get("upsample_factor", std::vector<int>(4, 1));

  const int64_t scalings =
      std::count(keys.spatio_temporal_scaling.begin(), keys.spatio_temporal_scaling.end(), true);
  const int default_ratio = 1 << std::min<int64_t>(scalings, 8);
  config.spatial_compression_ratio =
      reader.Get("spatial_compression_ratio", static_cast<int>(config.patch_size) * default_ratio);
  config.temporal_compression_ratio =
      reader.Get("temporal_compression_ratio", patch_size_t * default_ratio);
  KINO_RETURN_IF_ERROR(reader.status());

  if (patch_size_t != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": 'patch_size_t' is ", patch_size_t, ", expected 1"));
  }
  const std::vector<int> sizes = {
      static_cast<int>(config.in_channels), static_cast<int>(config.out_channels),
      static_cast<int>(config.latent_channels), static_cast<int>(config.patch_size)};
  KINO_RETURN_IF_ERROR(CheckEach(where, "in_channels, out_channels, latent_channels or patch_size",
                                 sizes, 1, kMaxChannels));
  KINO_RETURN_IF_ERROR(
      CheckEach(where, "block_out_channels", keys.block_out_channels, 1, kMaxChannels));
  KINO_RETURN_IF_ERROR(CheckEach(where, "decoder_block_out_channels",
                                 keys.decoder_block_out_channels, 1, kMaxChannels));
  KINO_RETURN_IF_ERROR(CheckEach(where, "layers_per_block", keys.layers_per_block, 0, kMaxLayers));
  KINO_RETURN_IF_ERROR(
      CheckEach(where, "decoder_layers_per_block", keys.decoder_layers_per_block, 0, kMaxLayers));
  KINO_RETURN_IF_ERROR(CheckEach(where, "upsample_factor", keys.upsample_factor, 1, kMaxChannels));
  KINO_RETURN_IF_ERROR(ResolveEncoder(keys, where, config));
  KINO_RETURN_IF_ERROR(ResolveDecoder(keys, where, config));
  KINO_RETURN_IF_ERROR(CheckRatios(where, config));
  return config;
}

}  // namespace kino::engine
