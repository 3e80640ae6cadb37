#include "engine/models/ltx/memory.h"

#include <algorithm>
#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/models/ltx/memory_vae.h"

namespace kino::engine {
namespace {

constexpr int64_t kFloatBytes = 4;
constexpr int64_t kLongBytes = 8;
// English prompts have 4 to 5 bytes a token; small vocabularies fewer.
constexpr int64_t kBytesPerToken = 3;

// "12" of "transformer_blocks.12.attn1", for prefix "transformer_blocks.".
std::optional<int> IndexBehind(std::string_view name, std::string_view prefix) {
  const size_t at = name.find(prefix);
  if (at != 0) return std::nullopt;
  std::string_view rest = name.substr(prefix.size());
  rest = rest.substr(0, rest.find('.'));
  int index = 0;
  if (!absl::SimpleAtoi(absl::string_view(rest.data(), rest.size()), &index)) return std::nullopt;
  return index;
}

bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

void PlaceInTransformer(const LtxConfigs& configs, std::string_view name, WeightPlace& place) {
  constexpr std::string_view kBlocks = "transformer_blocks.";
  constexpr char kPrepare[] = "prepare";
  const int last = configs.transformer.num_layers - 1;
  const std::optional<int> block = IndexBehind(name, kBlocks);
  if (!block) {
    if (name.starts_with("time_embed.") || name.starts_with("caption_projection.")) {
      place.part = place.group = kPrepare;
    } else {
      place.block = name.starts_with("proj_in.") ? 0 : last;
    }
  } else {
    place.block = *block;
    if (Contains(name, ".attn2.to_k.") || Contains(name, ".attn2.to_v.") ||
        Contains(name, ".attn2.norm_k.")) {
      place.part = kPrepare;
    }
  }
  if (place.block >= 0) {
    place.group =
        absl::StrCat(place.part, place.part.empty() ? "" : ".", std::string(kBlocks), place.block);
  }
}

void PlaceInTextEncoder(const LtxConfigs& configs, std::string_view name, WeightPlace& place) {
  constexpr std::string_view kBlocks = "encoder.block.";
  const std::optional<int> block = IndexBehind(name, kBlocks);
  const bool is_embedding = name == "shared.weight" || name == "encoder.embed_tokens.weight" ||
                            Contains(name, "relative_attention_bias");
  place.is_unused = name.starts_with("decoder.") || name.starts_with("lm_head.");
  if (is_embedding) {
    place.group = "embeddings";
    place.may_quantize = false;
    return;
  }
  place.block = block.value_or(configs.text_encoder.num_layers - 1);
  place.group = absl::StrCat(std::string(kBlocks), place.block);
}

// Each resnet and each sampler is a group of its own, what is left of a half another.
void PlaceInVae(std::string_view name, WeightPlace& place) {
  const std::vector<std::string> parts = absl::StrSplit(std::string(name), '.');
  place.part = place.group =
      parts[0] == "encoder" || parts[0] == "decoder" ? parts[0] : "statistics";
  std::string prefix;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    absl::StrAppend(&prefix, i == 0 ? "" : ".", parts[i]);
    const bool has_index =
        parts[i] == "resnets" || parts[i] == "upsamplers" || parts[i] == "downsamplers";
    if (has_index || (i > 1 && (parts[i] == "conv_in" || parts[i] == "conv_out"))) {
      place.group = has_index ? absl::StrCat(prefix, ".", parts[i + 1]) : prefix;
      return;
    }
  }
}

// What the formulas are written in: elements.
struct Sizes {
  int64_t element_bytes;
  int64_t rows;           // 2 with guidance
  int64_t tokens;         // latent
  int64_t channels;       // latent
  int64_t width;          // of the transformer
  int64_t layers;         // of the transformer
  int64_t prompt_tokens;  // of all prompts together, without padding
  int64_t padded_tokens;  // of one prompt
  int64_t timesteps;
  int64_t steps;
  int64_t latent_frames, latent_height, latent_width;
};

int64_t PromptTokens(const std::optional<std::string>& prompt, int64_t most) {
  const int64_t bytes = prompt ? static_cast<int64_t>(prompt->size()) : 0;
  return std::min(most, bytes / kBytesPerToken + 2);
}

Sizes SizesOf(const LtxConfigs& configs, const Request& request, DType dtype) {
  const LtxVaeConfig& vae = configs.vae;
  Sizes sizes = {};
  sizes.element_bytes = DTypeSize(dtype);
  sizes.rows = *request.guidance_scale > 1.0 ? 2 : 1;
  sizes.latent_frames = (*request.num_frames - 1) / vae.temporal_compression_ratio + 1;
  sizes.latent_height = *request.height / vae.spatial_compression_ratio;
  sizes.latent_width = *request.width / vae.spatial_compression_ratio;
  sizes.tokens = sizes.latent_frames * sizes.latent_height * sizes.latent_width;
  sizes.channels = configs.transformer.in_channels;
  sizes.width = configs.transformer.width();
  sizes.layers = configs.transformer.num_layers;
  sizes.padded_tokens = *request.ltx->max_sequence_length;
  sizes.prompt_tokens = PromptTokens(request.prompt, sizes.padded_tokens);
  if (sizes.rows == 2)
    sizes.prompt_tokens += PromptTokens(request.negative_prompt, sizes.padded_tokens);
  sizes.steps = *request.num_inference_steps;
  sizes.timesteps = sizes.steps + (request.conditions.empty() ? 0 : 1);
  return sizes;
}

// Float32 latents, packed.
int64_t LatentBytes(const Sizes& sizes) { return sizes.tokens * sizes.channels * kFloatBytes; }

// The encoded prompts, which the cache of embeddings holds as well (on the host).
int64_t EmbeddingBytes(const LtxConfigs& configs, const Sizes& sizes) {
  return sizes.rows * sizes.padded_tokens * configs.text_encoder.d_model * sizes.element_bytes;
}

// T5Encoder::Forward for one of the prompts.
int64_t TextActivations(const LtxConfigs& configs, const Sizes& sizes) {
  const T5EncoderConfig& text = configs.text_encoder;
  const int64_t e = sizes.element_bytes, length = sizes.padded_tokens;
  const int64_t hidden = length * text.d_model, inner = length * text.num_heads * text.d_kv,
                wide = length * text.d_ff, squares = length * length;
  const int64_t bias = text.num_heads * squares * e;
  // PositionBias: six tables of int64 at a time, two masks; then four of them, the table looked up
  // and its transpose.
  const int64_t buckets =
      std::max(squares * (6 * kLongBytes + 2), 4 * squares * kLongBytes + 2 * bias);
  // Norm: where it is not float32 already, a copy that is, and its square.
  const int64_t norm = hidden * kFloatBytes * (e == kFloatBytes ? 1 : 2);
  const int64_t attention = (hidden + 4 * inner) * e;
  const int64_t feed_forward = (hidden + 2 * wide) * e;
  const int64_t out = (2 * hidden + wide) * e + hidden * e;
  return hidden * e +
         std::max(buckets, bias + std::max({norm + hidden * e, attention, feed_forward, out}));
}

// What Prepare leaves for the steps.
int64_t PreparedBytes(const Sizes& sizes) {
  const int64_t rotary = sizes.tokens * sizes.width * kFloatBytes;
  const int64_t modulation = sizes.timesteps * 7 * sizes.width * sizes.element_bytes;
  const int64_t keys_and_values =
      2 * sizes.layers * sizes.prompt_tokens * sizes.width * sizes.element_bytes;
  return rotary + modulation + keys_and_values;
}

int64_t PrepareActivations(const Sizes& sizes) {
  // MakeRotaryTable: five float32 tables of half the width while the second one is made.
  const int64_t rotary = 5 * sizes.tokens * sizes.width / 2 * kFloatBytes;
  // A key on its way through the norm, in float32.
  const int64_t key =
      sizes.prompt_tokens * sizes.width * (2 * sizes.element_bytes + 3 * kFloatBytes);
  return LatentBytes(sizes) + std::max(rotary, PreparedBytes(sizes) + key);
}

// LtxTransformer::RunBlock at its worst, in tensors of [rows, tokens, width].
int64_t BlockActivations(const LtxConfigs& configs, const Sizes& sizes,
                         const PhaseOptions& options) {
  const int64_t elements = sizes.rows * sizes.tokens * sizes.width;
  const int64_t e = sizes.element_bytes, tensor = elements * e;
  // The residual stream, the normed input, q, k, the attended values and the cross-attended ones;
  // then the feed-forward's inner and outer.
  int64_t feed_forward = (6 + 4 + 1) * tensor;
  if (options.chunk_feed_forward && *options.chunk_feed_forward < sizes.tokens) {
    const int64_t chunk = sizes.rows * *options.chunk_feed_forward * sizes.width * e;
    feed_forward = (6 + 1) * tensor + (4 + 1 + (sizes.rows > 1 ? 1 : 0)) * chunk;
  }
  const int64_t attention = 7 * tensor + sizes.rows * sizes.tokens *
                                             configs.transformer.num_attention_heads * kFloatBytes;
  const int64_t cross = (sizes.rows > 1 ? 8 : 7) * tensor;
  int64_t most = std::max({feed_forward, attention, cross});
  if (options.on_gpu) return most;
  // torch's rms_norm in float32: the square, or two products.
  most = std::max(most, 6 * tensor + 2 * elements * kFloatBytes);
  if (e != kFloatBytes) {
    // No fused rows: the rotary embedding of k in float32 (input, output, three products of half
    // the width) beside the stream, the normed input, q, k and its norm.
    most = std::max(most, 5 * tensor + elements * kFloatBytes * 7 / 2);
  }
  return most;
}

int64_t DenoiseActivations(const LtxConfigs& configs, const Sizes& sizes,
                           const PhaseOptions& options) {
  // The last step's latents and this one's.
  return 2 * LatentBytes(sizes) + PreparedBytes(sizes) + BlockActivations(configs, sizes, options);
}

LtxTileSizes TilesOf(const std::optional<VaeTiling>& tiling) {
  LtxTileSizes tiles;
  if (!tiling) return tiles;
  tiles.in_space = true;
  tiles.in_time = tiling->framewise;
  tiles.min_height = tiling->tile_sample_min_height.value_or(tiles.min_height);
  tiles.min_width = tiling->tile_sample_min_width.value_or(tiles.min_width);
  tiles.min_frames = tiling->tile_sample_min_num_frames.value_or(tiles.min_frames);
  tiles.stride_height = tiling->tile_sample_stride_height.value_or(tiles.stride_height);
  tiles.stride_width = tiling->tile_sample_stride_width.value_or(tiles.stride_width);
  tiles.stride_frames = tiling->tile_sample_stride_num_frames.value_or(tiles.stride_frames);
  return tiles;
}

LtxVaeWalkOptions WalkOptions(const PhaseOptions& options) {
  const bool is_float = options.dtype == DType::kF32, is_bfloat16 = options.dtype == DType::kBF16;
  return {.element_bytes = DTypeSize(options.dtype),
          .norm_is_fused = !options.on_gpu && (is_float || is_bfloat16),
          // As vae_kernels.cc decides.
          .packs_weights = !options.on_gpu &&
                           (is_float || (is_bfloat16 && __builtin_cpu_supports("avx512vnni"))),
          .on_gpu = options.on_gpu};
}

double Flops(int64_t rows, int64_t in, int64_t out) {
  return 2.0 * static_cast<double>(rows) * static_cast<double>(in) * static_cast<double>(out);
}

}  // namespace

WeightPlace LtxWeightPlace(const LtxConfigs& configs, std::string_view component,
                           const WeightTensor& weight) {
  const std::string_view name = weight.name;
  const std::string_view layer = name.substr(0, std::max<size_t>(name.rfind('.'), 1));
  WeightPlace place;
  const bool is_weight = name.ends_with(".weight");
  place.may_quantize = is_weight && (weight.shape.size() == 2 || weight.is_quantized);
  // diffusers' default patterns (hooks/layerwise_casting.py); LTX adds none to them.
  place.may_cast = (is_weight || name.ends_with(".bias")) && !Contains(layer, "norm") &&
                   !Contains(layer, "pos_embed") && !Contains(layer, "patch_embed") &&
                   layer != "proj_in" && layer != "proj_out";
  if (component == "transformer") {
    PlaceInTransformer(configs, name, place);
  } else if (component == "text_encoder") {
    PlaceInTextEncoder(configs, name, place);
    // transformers keeps `wo` from quantizers, and in float32 where the rest is in float16.
    const bool is_kept = Contains(name, ".DenseReluDense.wo.");
    place.float16_is_float32 = is_kept;
    if (is_kept && !weight.is_quantized) place.may_quantize = false;
  } else if (component == "vae") {
    PlaceInVae(name, place);
  }
  return place;
}

std::vector<PhaseNeed> LtxPhases(const LtxConfigs& configs, const Request& request,
                                 const PhaseOptions& options) {
  const Sizes sizes = SizesOf(configs, request, options.dtype);
  const T5EncoderConfig& text = configs.text_encoder;
  const int64_t embeddings = EmbeddingBytes(configs, sizes);
  // The cache of embeddings is on the host.
  const int64_t cached = options.on_gpu ? 0 : embeddings;
  const int64_t pixels = int64_t{3} * *request.height * *request.width;
  const LtxTileSizes tiles = TilesOf(options.vae_tiling);
  const LtxVaeWalkOptions walk = WalkOptions(options);
  std::vector<PhaseNeed> phases;

  PhaseNeed encode = {.stage = Stage::kEncodeText, .component = "text_encoder", .part = ""};
  encode.device_activations =
      TextActivations(configs, sizes) + embeddings * (sizes.rows - 1) / sizes.rows;
  encode.host_activations = embeddings;
  const int64_t inner = int64_t{text.num_heads} * text.d_kv;
  encode.linear_flops = text.num_layers * (4 * Flops(sizes.padded_tokens, text.d_model, inner) +
                                           3 * Flops(sizes.padded_tokens, text.d_model, text.d_ff));
  encode.attention_flops =
      2.0 * text.num_layers * Flops(sizes.padded_tokens, sizes.padded_tokens, inner);
  // All prompts in one pass.
  encode.linear_flops *= static_cast<double>(sizes.rows);
  encode.attention_flops *= static_cast<double>(sizes.rows);
  encode.rows = sizes.padded_tokens;
  encode.passes = 1;
  phases.push_back(encode);
  // Latents are drawn on the host and packed.
  PhaseNeed draw = encode;
  draw.linear_flops = draw.attention_flops = 0;
  draw.passes = 0;
  draw.device_activations = embeddings + (options.on_gpu ? 1 : 2) * LatentBytes(sizes);
  draw.host_activations = embeddings + LatentBytes(sizes);

  if (!request.conditions.empty()) {
    const LtxVaePeak peak =
        LtxEncodePeak(configs.vae, 1, *request.height, *request.width, tiles, walk);
    PhaseNeed media = {.stage = Stage::kEncodeMedia, .component = "vae", .part = "encoder"};
    media.device_activations = embeddings + peak.bytes;
    media.host_activations = embeddings + pixels * kFloatBytes;
    media.passes = peak.passes;
    media.convolution_flops = peak.flops / static_cast<double>(peak.passes);
    phases.push_back(media);
    draw.stage = media.stage;
    draw.component = media.component;
    draw.part = media.part;
  }
  phases.push_back(draw);

  PhaseNeed prepare = {.stage = Stage::kDenoise, .component = "transformer", .part = "prepare"};
  prepare.device_activations = embeddings + PrepareActivations(sizes);
  prepare.host_activations = embeddings;
  prepare.linear_flops = static_cast<double>(sizes.layers * 2 + 1) *
                         Flops(sizes.prompt_tokens / sizes.rows, sizes.width, sizes.width);
  prepare.rows = std::max(sizes.prompt_tokens, sizes.timesteps);
  prepare.passes = sizes.rows;
  phases.push_back(prepare);

  PhaseNeed denoise = {.stage = Stage::kDenoise, .component = "transformer", .part = ""};
  denoise.device_activations = embeddings + DenoiseActivations(configs, sizes, options);
  denoise.host_activations = embeddings;
  const int64_t rows = sizes.rows * sizes.tokens, width = sizes.width;
  // Six square matrices (four of self-attention, two of cross-attention), two of the feed-forward.
  denoise.linear_flops = static_cast<double>(sizes.layers) *
                             (6 * Flops(rows, width, width) + 2 * Flops(rows, width, 4 * width)) +
                         2 * Flops(rows, sizes.channels, width);
  denoise.attention_flops =
      static_cast<double>(sizes.layers) *
      (2 * Flops(rows, sizes.tokens, width) + 2 * Flops(sizes.tokens, sizes.prompt_tokens, width));
  denoise.rows = rows;
  denoise.passes = sizes.steps;
  phases.push_back(denoise);

  const LtxVaePeak peak = LtxDecodePeak(configs.vae, sizes.latent_frames, sizes.latent_height,
                                        sizes.latent_width, tiles, walk);
  PhaseNeed decode = {.stage = Stage::kDecode, .component = "vae", .part = "decoder"};
  const int64_t latents = LatentBytes(sizes) + sizes.tokens * sizes.channels * sizes.element_bytes;
  decode.device_activations = cached + std::max(latents + peak.bytes, 6 * LatentBytes(sizes));
  // Frames as they come, in float32 and as bytes for the encoder.
  decode.host_activations =
      embeddings + configs.vae.temporal_compression_ratio * pixels * (kFloatBytes + 1);
  decode.passes = peak.passes;
  decode.convolution_flops = peak.flops / static_cast<double>(peak.passes);
  phases.push_back(decode);
  return phases;
}

}  // namespace kino::engine
