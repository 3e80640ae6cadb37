#include "engine/models/ltx/weight_map.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

using Json = nlohmann::json;
using Renames = std::vector<std::pair<std::string_view, std::string_view>>;

// Python's str.replace.
void ReplaceAll(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
}

// In this order, each over the outcome of the one before.
std::string Rename(std::string_view name, const Renames& renames) {
  std::string text(name);
  for (const auto& [from, to] : renames) ReplaceAll(text, from, to);
  return text;
}

bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// The transformer's tensors are those that are not the VAE's.
bool IsVae(std::string_view name) { return Contains(name, "vae"); }

const Renames& TransformerRenames() {
  static const Renames renames = {{"model.diffusion_model.", ""},
                                  {"patchify_proj", "proj_in"},
                                  {"adaln_single", "time_embed"},
                                  {"q_norm", "norm_q"},
                                  {"k_norm", "norm_k"}};
  return renames;
}

// The original decoder counts mid block, upsamplers and runs of resnets through; so does the
// encoder. Two layouts of each.
const Renames& Decoder090() {
  static const Renames renames = {{"up_blocks.0", "mid_block"},
                                  {"up_blocks.1", "up_blocks.0"},
                                  {"up_blocks.2", "up_blocks.1.upsamplers.0"},
                                  {"up_blocks.3", "up_blocks.1"},
                                  {"up_blocks.4", "up_blocks.2.conv_in"},
                                  {"up_blocks.5", "up_blocks.2.upsamplers.0"},
                                  {"up_blocks.6", "up_blocks.2"},
                                  {"up_blocks.7", "up_blocks.3.conv_in"},
                                  {"up_blocks.8", "up_blocks.3.upsamplers.0"},
                                  {"up_blocks.9", "up_blocks.3"}};
  return renames;
}
const Renames& Decoder091() {
  static const Renames renames = {
      {"up_blocks.0", "mid_block"},   {"up_blocks.1", "up_blocks.0.upsamplers.0"},
      {"up_blocks.2", "up_blocks.0"}, {"up_blocks.3", "up_blocks.1.upsamplers.0"},
      {"up_blocks.4", "up_blocks.1"}, {"up_blocks.5", "up_blocks.2.upsamplers.0"},
      {"up_blocks.6", "up_blocks.2"}, {"up_blocks.7", "up_blocks.3.upsamplers.0"},
      {"up_blocks.8", "up_blocks.3"}};
  return renames;
}
const Renames& Encoder090() {
  static const Renames renames = {{"down_blocks.1", "down_blocks.0.downsamplers.0"},
                                  {"down_blocks.2", "down_blocks.0.conv_out"},
                                  {"down_blocks.3", "down_blocks.1"},
                                  {"down_blocks.4", "down_blocks.1.downsamplers.0"},
                                  {"down_blocks.5", "down_blocks.1.conv_out"},
                                  {"down_blocks.6", "down_blocks.2"},
                                  {"down_blocks.7", "down_blocks.2.downsamplers.0"},
                                  {"down_blocks.8", "down_blocks.3"},
                                  {"down_blocks.9", "mid_block"}};
  return renames;
}
const Renames& Encoder095() {
  static const Renames renames = {
      {"down_blocks.1", "down_blocks.0.downsamplers.0"}, {"down_blocks.2", "down_blocks.1"},
      {"down_blocks.3", "down_blocks.1.downsamplers.0"}, {"down_blocks.4", "down_blocks.2"},
      {"down_blocks.5", "down_blocks.2.downsamplers.0"}, {"down_blocks.6", "down_blocks.3"},
      {"down_blocks.7", "down_blocks.3.downsamplers.0"}, {"down_blocks.8", "mid_block"}};
  return renames;
}
const Renames& VaeCommon() {
  static const Renames renames = {{"conv_shortcut", "conv_shortcut.conv"},
                                  {"res_blocks", "resnets"},
                                  {"norm3.norm", "norm3"},
                                  {"per_channel_statistics.mean-of-means", "latents_mean"},
                                  {"per_channel_statistics.std-of-means", "latents_std"}};
  return renames;
}
// From 0.9.1 on, behind the common ones.
const Renames& VaeConditioning() {
  static const Renames renames = {{"last_time_embedder", "time_embedder"},
                                  {"last_scale_shift_table", "scale_shift_table"}};
  return renames;
}

enum class VaeGeneration { k090, k091, k095 };

// The places at which diffusers tells the generations apart; for 0.9.5 it looks at conv_out's 2048
// channels, which only the published sizes have: here the encoder's layout, in which the third
// block is a run of resnets already.
VaeGeneration GenerationOf(const TensorMap& tensors) {
  const auto from = tensors.lower_bound("vae.encoder.down_blocks.2.res_blocks.");
  if (from != tensors.end() &&
      absl::StartsWith(from->first, "vae.encoder.down_blocks.2.res_blocks."))
    return VaeGeneration::k095;
  return tensors.contains("vae.decoder.last_time_embedder.timestep_embedder.linear_1.weight")
             ? VaeGeneration::k091
             : VaeGeneration::k090;
}

std::vector<MappedTensor> MapTransformer(std::string_view name, const TensorEntry&) {
  if (IsVae(name)) return {};
  return {{.name = Rename(name, TransformerRenames())}};
}

KeyMap TransformerMap() { return {.name = "LTX-Video transformer", .map = MapTransformer}; }

KeyMap VaeMap(VaeGeneration generation) {
  Renames renames = {{"vae.", ""}};
  const auto append = [&renames](const Renames& more) {
    renames.insert(renames.end(), more.begin(), more.end());
  };
  append(generation == VaeGeneration::k090 ? Decoder090() : Decoder091());
  append(generation == VaeGeneration::k095 ? Encoder095() : Encoder090());
  append(VaeCommon());
  if (generation != VaeGeneration::k090) append(VaeConditioning());
  return {.name = "LTX-Video VAE",
          .map = [renames](std::string_view name, const TensorEntry&) -> std::vector<MappedTensor> {
            if (!Contains(name, "vae.")) return {};
            std::string mapped = Rename(name, renames);
            // Statistics that no model reads.
            if (Contains(mapped, "per_channel_statistics.channel") ||
                Contains(mapped, "per_channel_statistics.mean-of-means") ||
                Contains(mapped, "per_channel_statistics.mean-of-stds")) {
              return {};
            }
            return {{.name = std::move(mapped)}};
          }};
}

// The shapes of a component by mapped name.
class Shapes {
 public:
  Shapes(const TensorFile& file, const KeyMap& map) : path_(file.path()), component_(map.name) {
    for (const auto& [original, entry] : file.tensors()) {
      for (const MappedTensor& mapped : map.map(original, entry)) {
        shapes_.emplace(mapped.name, entry.shape);
      }
    }
  }

  bool Has(const std::string& name) const { return shapes_.contains(name); }
  bool HasPrefix(const std::string& prefix) const {
    const auto from = shapes_.lower_bound(prefix);
    return from != shapes_.end() && absl::StartsWith(from->first, prefix);
  }
  // How many of prefix0., prefix1., ... there are.
  int Count(const std::string& prefix) const {
    int count = 0;
    while (HasPrefix(absl::StrCat(prefix, count, "."))) ++count;
    return count;
  }
  // An extent of a tensor; what is missing is kept for status(), and 1 returned.
  int64_t Extent(const std::string& name, size_t dimension) {
    const auto found = shapes_.find(name);
    if (found == shapes_.end()) {
      Fail(absl::StrCat("no tensor '", name, "'"));
      return 1;
    }
    if (dimension >= found->second.size() || found->second[dimension] < 1) {
      Fail(absl::StrCat("tensor '", name, "' has shape [", absl::StrJoin(found->second, ", "),
                        "], expected a dimension ", dimension));
      return 1;
    }
    return found->second[dimension];
  }
  void Fail(const std::string& what) {
    if (status_.ok()) {
      status_ =
          absl::InvalidArgumentError(absl::StrCat("'", path_, "' (", component_, "): ", what));
    }
  }
  const absl::Status& status() const { return status_; }

 private:
  std::string path_;
  std::string component_;
  std::map<std::string, std::vector<int64_t>> shapes_;
  absl::Status status_;
};

int Integer(const Json& config, const char* key, int fallback) {
  const auto found = config.find(key);
  return found != config.end() && found->is_number_integer() ? found->get<int>() : fallback;
}

// Whether a model of `config` would have the sizes of `shaped`; keys as LtxTransformerConfig
// defaults them.
bool Fits(const Json& config, const Json& shaped) {
  const int width =
      Integer(config, "num_attention_heads", 32) * Integer(config, "attention_head_dim", 64);
  const int in_channels = Integer(config, "in_channels", 128);
  return width == shaped["cross_attention_dim"] && in_channels == shaped["in_channels"] &&
         Integer(config, "out_channels", in_channels) == shaped["out_channels"] &&
         Integer(config, "num_layers", 28) == shaped["num_layers"] &&
         Integer(config, "caption_channels", 4096) == shaped["caption_channels"];
}

// What Lightricks' files say of themselves in their metadata; 0 when they do not.
int HeadsInMetadata(const TensorFile& file) {
  const auto found = file.metadata().find("config");
  if (found == file.metadata().end()) return 0;
  const Json json = Json::parse(found->second, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("transformer") || !json["transformer"].is_object()) {
    return 0;
  }
  return Integer(json["transformer"], "num_attention_heads", 0);
}

// Strides of LTXVideo095DownBlock3D by the factor between its channels and its convolution's.
struct Downsample {
  int64_t factor;
  const char* type;
  int64_t space, time;
};
constexpr std::array<Downsample, 3> kDownsamples = {
    {{4, "spatial", 2, 1}, {2, "temporal", 1, 2}, {8, "spatiotemporal", 2, 2}}};

void ReadEncoder(Shapes& shapes, bool is_095, Json& config) {
  const std::string blocks = "encoder.down_blocks.";
  const int count = shapes.Count(blocks);
  Json channels = Json::array({shapes.Extent("encoder.conv_in.conv.weight", 0)});
  Json layers = Json::array(), scaling = Json::array(), types = Json::array();
  Json downsample_types = Json::array();
  int64_t space = config["patch_size"], time = 1;
  for (int i = 0; i < count; ++i) {
    const std::string block = absl::StrCat(blocks, i, ".");
    const bool scales = shapes.HasPrefix(block + "downsamplers.0.");
    layers.push_back(shapes.Count(block + "resnets."));
    scaling.push_back(scales);
    types.push_back(is_095 ? "LTXVideo095DownBlock3D" : "LTXVideoDownBlock3D");
    if (!is_095) {
      if (scales) {
        space *= 2;
        time *= 2;
      }
      downsample_types.push_back("conv");
      // The last block keeps its channels and has no entry of its own.
      if (i + 1 == count) break;
      const std::string resnet = block + "conv_out.conv1.conv.weight";
      channels.push_back(shapes.Has(resnet) ? shapes.Extent(resnet, 0)
                                            : channels.back().get<int64_t>());
      continue;
    }
    // What comes behind takes what the block gives.
    const std::string next =
        i + 1 < count ? absl::StrCat(blocks, i + 1, ".") : "encoder.mid_block.";
    const int64_t out = shapes.Extent(next + "resnets.0.conv1.conv.weight", 1);
    channels.push_back(out);
    if (!scales) {
      downsample_types.push_back("conv");
      continue;
    }
    const int64_t narrow = shapes.Extent(block + "downsamplers.0.conv.conv.weight", 0);
    const auto found =
        std::find_if(kDownsamples.begin(), kDownsamples.end(),
                     [&](const Downsample& row) { return row.factor * narrow == out; });
    if (found == kDownsamples.end()) {
      shapes.Fail(absl::StrCat("down block ", i, " makes ", narrow, " channels into ", out,
                               ", expected a factor of 2, 4 or 8"));
      return;
    }
    downsample_types.push_back(found->type);
    space *= found->space;
    time *= found->time;
  }
  layers.push_back(shapes.Count("encoder.mid_block.resnets."));
  config["block_out_channels"] = channels;
  config["down_block_types"] = types;
  config["layers_per_block"] = layers;
  config["spatio_temporal_scaling"] = scaling;
  config["downsample_type"] = downsample_types;
  config["spatial_compression_ratio"] = space;
  config["temporal_compression_ratio"] = time;
}

// The config lists the decoder's blocks from the last to the first.
void ReadDecoder(Shapes& shapes, bool residual, Json& config) {
  const std::string blocks = "decoder.up_blocks.";
  const int count = shapes.Count(blocks);
  std::vector<int64_t> channels, factors;
  std::vector<int> layers = {shapes.Count("decoder.mid_block.resnets.")};
  std::vector<bool> scaling;
  std::vector<bool> noise = {shapes.Has("decoder.mid_block.resnets.0.per_channel_scale1")};
  for (int i = 0; i < count; ++i) {
    const std::string block = absl::StrCat(blocks, i, ".");
    const std::string upsampler = block + "upsamplers.0.conv.conv.weight";
    const int64_t out = shapes.Extent(block + "resnets.0.conv2.conv.weight", 0);
    const bool scales = shapes.Has(upsampler);
    const int64_t factor = scales ? shapes.Extent(upsampler, 1) / out : 1;
    layers.push_back(shapes.Count(block + "resnets."));
    scaling.push_back(scales);
    factors.push_back(factor);
    channels.push_back(out * factor);
    noise.push_back(shapes.Has(block + "resnets.0.per_channel_scale1"));
  }
  const auto list = [](auto values) {
    std::reverse(values.begin(), values.end());
    return Json(values);
  };
  config["decoder_block_out_channels"] = list(channels);
  config["decoder_layers_per_block"] = list(layers);
  config["decoder_spatio_temporal_scaling"] = list(scaling);
  config["decoder_inject_noise"] = list(noise);
  config["upsample_residual"] = std::vector<bool>(static_cast<size_t>(count), residual);
  config["upsample_factor"] = list(factors);
}

}  // namespace

bool HoldsLtxTransformer(const TensorFile& file) {
  return std::any_of(file.tensors().begin(), file.tensors().end(), [](const auto& tensor) {
    return !IsVae(tensor.first) &&
           Rename(tensor.first, TransformerRenames()) == "transformer_blocks.0.attn2.norm_q.weight";
  });
}

bool HoldsLtxVae(const TensorFile& file) {
  return file.tensors().contains("vae.encoder.conv_in.conv.weight");
}

absl::StatusOr<LtxFileComponent> LtxTransformerInFile(const TensorFile& file,
                                                      const Json* folder_config) {
  if (!HoldsLtxTransformer(file)) {
    return absl::NotFoundError(absl::StrCat("'", file.path(), "' holds no LTX-Video transformer"));
  }
  LtxFileComponent component{.map = TransformerMap(), .config = Json::object()};
  Shapes shapes(file, component.map);
  if (shapes.HasPrefix("audio_")) {
    return absl::UnimplementedError(
        absl::StrCat("'", file.path(), "' holds LTX-2, expected LTX-Video"));
  }
  const int64_t width = shapes.Extent("proj_in.weight", 0);
  Json& config = component.config;
  config = {{"_class_name", "LTXVideoTransformer3DModel"},
            {"in_channels", shapes.Extent("proj_in.weight", 1)},
            {"out_channels", shapes.Extent("proj_out.weight", 0)},
            {"patch_size", 1},
            {"patch_size_t", 1},
            {"cross_attention_dim", width},
            {"num_layers", shapes.Count("transformer_blocks.")},
            {"activation_fn", "gelu-approximate"},
            {"qk_norm", "rms_norm_across_heads"},
            {"norm_elementwise_affine", false},
            {"norm_eps", 1e-6},
            {"caption_channels", shapes.Extent("caption_projection.linear_1.weight", 1)},
            {"attention_bias", shapes.Has("transformer_blocks.0.attn1.to_q.bias")},
            {"attention_out_bias", shapes.Has("transformer_blocks.0.attn1.to_out.0.bias")}};
  KINO_RETURN_IF_ERROR(shapes.status());
  if (folder_config != nullptr && Fits(*folder_config, config)) {
    config = *folder_config;
    return component;
  }
  int heads = HeadsInMetadata(file);
  if (heads == 0 && (width == 2048 || width == 4096)) heads = 32;
  if (heads < 1 || width % heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", file.path(), "': a transformer of width ", width, " and ",
        heads == 0 ? "an unknown number of" : absl::StrCat(heads),
        " heads; expected 2048 or 4096, ",
        "a multiple of the number of heads in its metadata, or a folder's transformer/config.json "
        "of this width"));
  }
  config["num_attention_heads"] = heads;
  config["attention_head_dim"] = width / heads;
  return component;
}

absl::StatusOr<LtxFileComponent> LtxVaeInFile(const TensorFile& file) {
  if (!HoldsLtxVae(file)) {
    return absl::NotFoundError(absl::StrCat("'", file.path(), "' holds no LTX-Video VAE"));
  }
  const VaeGeneration generation = GenerationOf(file.tensors());
  LtxFileComponent component{.map = VaeMap(generation), .config = Json::object()};
  Shapes shapes(file, component.map);
  constexpr int64_t kPixelChannels = 3;
  const int64_t patched = shapes.Extent("encoder.conv_in.conv.weight", 1);
  const auto patch =
      static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(patched) / kPixelChannels)));
  if (patch * patch * kPixelChannels != patched) {
    shapes.Fail(
        absl::StrCat("the encoder takes ", patched, " channels, expected 3 times a square"));
  }
  Json& config = component.config;
  config = {{"_class_name", "AutoencoderKLLTXVideo"},
            {"in_channels", kPixelChannels},
            {"out_channels", kPixelChannels},
            {"latent_channels", shapes.Extent("decoder.conv_in.conv.weight", 1)},
            {"patch_size", patch},
            {"patch_size_t", 1},
            {"resnet_norm_eps", 1e-6},
            {"scaling_factor", 1.0},
            {"encoder_causal", true},
            {"decoder_causal", false},
            {"timestep_conditioning", shapes.HasPrefix("decoder.time_embedder.")}};
  ReadEncoder(shapes, generation == VaeGeneration::k095, config);
  ReadDecoder(shapes, generation != VaeGeneration::k090, config);
  KINO_RETURN_IF_ERROR(shapes.status());
  return component;
}

}  // namespace kino::engine
