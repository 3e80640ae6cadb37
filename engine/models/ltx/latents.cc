#include "engine/models/ltx/latents.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include "engine/models/common/guidance.h"
#include "engine/models/common/latent_statistics.h"

namespace kino::engine {

at::Tensor SampleLtxVideo(const LtxVae& vae, const VideoSource& video,
                          const std::optional<VaeTiling>& tiling, NoiseSource& noise,
                          const RunContext& context) {
  const at::Tensor sample = SamplePosterior(vae.Encode(video, tiling, context), noise);
  // Upstream leaves the scaling factor out here.
  return (sample.to(at::kFloat) - ByChannel(vae.latents_mean())) / ByChannel(vae.latents_std());
}

at::Tensor DenormalizeLtxLatents(const LtxVae& vae, const at::Tensor& latents) {
  return DenormalizeLatents(latents, ByChannel(vae.latents_mean()), ByChannel(vae.latents_std()),
                            vae.config().scaling_factor);
}

at::Tensor NormalizeLtxLatents(const LtxVae& vae, const at::Tensor& latents) {
  return (latents.to(at::kFloat) - ByChannel(vae.latents_mean())) * vae.config().scaling_factor /
         ByChannel(vae.latents_std());
}

at::Tensor UpsampleLtxLatents(const LtxVae& vae, const LtxLatentUpsampler& upsampler,
                              const LtxKnobs& knobs, const at::Tensor& latents, const Tap& tap,
                              const RunContext& context) {
  const at::Tensor small = DenormalizeLtxLatents(vae, latents).to(upsampler.dtype());
  TapTensor(tap, "video_latents", small);
  at::Tensor large = upsampler.Forward(small, context);
  TapTensor(tap, "upsampled", large);
  if (*knobs.adain_factor > 0) large = MatchStatistics(large, small, *knobs.adain_factor);
  if (*knobs.tone_map_compression_ratio > 0)
    large = ToneMap(large, *knobs.tone_map_compression_ratio);
  return large;
}

at::Tensor PredictLtx(const LtxTransformer& transformer,
                      const std::vector<LtxTransformer::Prepared>& prepared,
                      const TokenSpans& spans, const at::Tensor& latents,
                      const LtxGuidance& guidance, const RunContext& context) {
  std::vector<const LtxTransformer::Prepared*> rows;
  for (const LtxTransformer::Prepared& row : prepared) rows.push_back(&row);
  const at::Tensor input = rows.size() == 1 ? latents : latents.expand({2, -1, -1});
  const at::Tensor predictions = transformer.Forward(rows, spans, input, context).to(at::kFloat);
  if (rows.size() == 1) return predictions;
  const at::Tensor guided = Guide(predictions, guidance.scale);
  if (guidance.rescale == 0) return guided;
  return RescaleGuidance(guided, predictions.narrow(0, 1, 1), guidance.rescale);
}

at::Tensor AddDecodeNoise(const LtxVae& vae, const LtxKnobs& knobs, at::Tensor& latents,
                          NoiseSource& noise) {
  if (!vae.config().timestep_conditioning) return {};
  const at::TensorOptions options = latents.options();
  const auto one = [&options](double value) {
    return at::tensor({value}, at::TensorOptions().dtype(at::kDouble)).to(options);
  };
  const at::Tensor fresh = noise.Randn(latents.sizes(), latents.scalar_type(), latents.device());
  const at::Tensor scale = one(*knobs.decode_noise_scale);
  latents = (1 - scale) * latents + scale * fresh;
  return one(*knobs.decode_timestep);
}

std::unique_ptr<DecodeStream> StartLtxDecode(const LtxVae& vae, const LtxKnobs& knobs,
                                             const std::optional<VaeTiling>& tiling,
                                             at::Tensor& latents, NoiseSource& noise,
                                             const Tap& tap) {
  const at::Tensor timestep = AddDecodeNoise(vae, knobs, latents, noise);
  latents = latents.to(vae.dtype()).contiguous();
  TapTensor(tap, "latents", latents);
  return vae.Decode(latents,
                    {.timestep = timestep, .noise_generator = noise.global(), .tiling = tiling});
}

}  // namespace kino::engine
