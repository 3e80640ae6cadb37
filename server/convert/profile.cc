#include "server/convert/profile.h"

#include <cmath>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/convert/job.h"
#include "server/convert/memory_estimate.h"
#include "server/convert/request.h"

namespace kino::convert {
namespace {

std::optional<engine::Stage> StageOf(v1::Stage stage) {
  for (const engine::Stage each :
       {engine::Stage::kLoad, engine::Stage::kEncodeText, engine::Stage::kEncodeMedia,
        engine::Stage::kDenoise, engine::Stage::kUpscale, engine::Stage::kDecode,
        engine::Stage::kMux}) {
    if (FromEngine(each) == stage) return each;
  }
  return std::nullopt;
}

absl::StatusOr<engine::PhaseNeed> ToEngine(const v1::PhaseNeed& phase) {
  const std::optional<engine::Stage> stage = StageOf(phase.stage());
  const v1::KernelCounts& kernels = phase.kernels();
  const auto is_amount = [](double value) { return std::isfinite(value) && value >= 0; };
  if (!stage || phase.device_activations() < 0 || phase.host_activations() < 0 ||
      phase.rows() < 0 || !is_amount(phase.linear_flops()) || !is_amount(phase.attention_flops()) ||
      !is_amount(phase.convolution_flops()) || !is_amount(phase.passes()) ||
      !is_amount(kernels.launches()) || !is_amount(kernels.bytes_read()) ||
      !is_amount(kernels.bytes_written()) || !is_amount(kernels.roofline_seconds())) {
    return absl::InvalidArgumentError(absl::StrCat("a phase of '", phase.component(),
                                                   "' is no phase: ", phase.ShortDebugString()));
  }
  return engine::PhaseNeed{.stage = *stage,
                           .component = phase.component(),
                           .part = phase.part(),
                           .device_activations = phase.device_activations(),
                           .host_activations = phase.host_activations(),
                           .rows = phase.rows(),
                           .linear_flops = phase.linear_flops(),
                           .attention_flops = phase.attention_flops(),
                           .convolution_flops = phase.convolution_flops(),
                           .kernels = {.launches = kernels.launches(),
                                       .bytes_read = kernels.bytes_read(),
                                       .bytes_written = kernels.bytes_written(),
                                       .roofline_seconds = kernels.roofline_seconds()},
                           .passes = phase.passes()};
}

}  // namespace

v1::Plan FromEngine(const engine::PhaseVariant& variant) {
  engine::Plan plan;
  plan.vae_tiling = variant.vae_tiling;
  plan.chunk_feed_forward = variant.chunk_feed_forward;
  return FromEngine(plan);
}

engine::PhaseVariant VariantOf(const v1::Plan& plan) {
  const engine::Plan read = ToEngine(plan);
  return {.vae_tiling = read.vae_tiling, .chunk_feed_forward = read.chunk_feed_forward};
}

v1::RunProfile FromEngine(const engine::RunProfile& profile, bool places) {
  v1::RunProfile out;
  for (const auto& [variant, phases] : profile.variants) {
    v1::VariantPhases& to = *out.add_variants();
    *to.mutable_variant() = FromEngine(variant);
    for (const engine::PhaseNeed& phase : phases) {
      v1::PhaseNeed& need = *to.add_phases();
      need.set_stage(FromEngine(phase.stage));
      need.set_component(phase.component);
      need.set_part(phase.part);
      need.set_device_activations(phase.device_activations);
      need.set_host_activations(phase.host_activations);
      need.set_rows(phase.rows);
      need.set_linear_flops(phase.linear_flops);
      need.set_attention_flops(phase.attention_flops);
      need.set_convolution_flops(phase.convolution_flops);
      need.set_passes(phase.passes);
      if (phase.kernels.launches > 0) *need.mutable_kernels() = FromEngine(phase.kernels);
    }
  }
  if (!places) return out;
  for (const engine::ComponentPlaces& component : *profile.places) {
    v1::ComponentPlaces& to = *out.add_places();
    to.set_component(component.component);
    for (const engine::WeightPlace& weight : component.weights) {
      v1::WeightPlace& place = *to.add_weights();
      place.set_name(weight.name);
      place.set_part(weight.part);
      place.set_group(weight.group);
      if (weight.stack >= 0) place.set_stack(weight.stack);
      if (weight.block >= 0) place.set_block(weight.block);
      place.set_dtype(engine::ComputeDTypeName(weight.dtype));
      place.set_may_quantize(weight.may_quantize);
      place.set_may_cast(weight.may_cast);
    }
  }
  return out;
}

absl::StatusOr<engine::RunProfile> ToEngine(const v1::RunProfile& profile) {
  engine::RunProfile out;
  for (const v1::VariantPhases& variant : profile.variants()) {
    auto& [key, phases] = out.variants.emplace_back();
    key = VariantOf(variant.variant());
    for (const v1::PhaseNeed& phase : variant.phases()) {
      absl::StatusOr<engine::PhaseNeed> read = ToEngine(phase);
      if (!read.ok()) return read.status();
      phases.push_back(*std::move(read));
    }
  }
  if (profile.places().empty()) return out;
  auto places = std::make_shared<std::vector<engine::ComponentPlaces>>();
  for (const v1::ComponentPlaces& component : profile.places()) {
    engine::ComponentPlaces& to = places->emplace_back();
    to.component = component.component();
    for (const v1::WeightPlace& weight : component.weights()) {
      const std::optional<engine::DType> dtype = engine::ComputeDTypeFromName(weight.dtype());
      if (!dtype || weight.stack() < 0 || weight.block() < 0) {
        return absl::InvalidArgumentError(absl::StrCat("the place of '", weight.name(),
                                                       "' is none: ", weight.ShortDebugString()));
      }
      to.weights.push_back({.name = weight.name(),
                            .part = weight.part(),
                            .group = weight.group(),
                            .stack = weight.has_stack() ? weight.stack() : -1,
                            .block = weight.has_block() ? weight.block() : -1,
                            .dtype = *dtype,
                            .may_quantize = weight.may_quantize(),
                            .may_cast = weight.may_cast()});
    }
  }
  out.places = std::move(places);
  return out;
}

}  // namespace kino::convert
