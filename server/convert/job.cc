#include "server/convert/job.h"

#include <cmath>
#include <utility>

namespace kino::convert {

v1::Stage FromEngine(engine::Stage stage) {
  switch (stage) {
    case engine::Stage::kLoad:
      return v1::LOAD;
    case engine::Stage::kEncodeText:
      return v1::ENCODE_TEXT;
    case engine::Stage::kEncodeMedia:
      return v1::ENCODE_MEDIA;
    case engine::Stage::kDenoise:
      return v1::DENOISE;
    case engine::Stage::kUpscale:
      return v1::UPSCALING;
    case engine::Stage::kDecode:
      return v1::DECODE;
    case engine::Stage::kMux:
      return v1::MUX;
  }
  return v1::STAGE_UNSPECIFIED;
}

v1::StageStats FromEngine(const engine::StageStats& stats) {
  v1::StageStats out;
  out.set_stage(FromEngine(stats.stage));
  out.set_seconds(stats.seconds);
  out.set_peak_device_bytes(stats.peak_device_bytes);
  out.set_peak_host_bytes(stats.peak_host_bytes);
  out.set_peak_weight_bytes(stats.peak_weight_bytes);
  out.set_steps(stats.steps);
  out.set_step_seconds(stats.step_seconds);
  return out;
}

v1::Progress FromEngine(const engine::RunProgress& progress, int attempt) {
  v1::Progress out;
  out.set_attempt(attempt);
  out.set_pass(progress.pass);
  out.set_total_passes(progress.total_passes);
  out.set_stage(FromEngine(progress.stage));
  out.set_step(progress.step);
  out.set_total_steps(progress.total_steps);
  out.set_fraction(progress.fraction);
  if (progress.eta_seconds && *progress.eta_seconds >= 0 && std::isfinite(*progress.eta_seconds)) {
    const double whole = std::floor(*progress.eta_seconds);
    out.mutable_eta()->set_seconds(static_cast<int64_t>(whole));
    out.mutable_eta()->set_nanos(static_cast<int32_t>((*progress.eta_seconds - whole) * 1e9));
  }
  return out;
}

v1::Artifact ToArtifact(const engine::RunResult& result, int64_t size_bytes, std::string sha256) {
  v1::Artifact out;
  out.set_content_type("video/mp4");
  out.set_size_bytes(size_bytes);
  out.set_sha256(std::move(sha256));
  out.set_width(result.width);
  out.set_height(result.height);
  out.set_num_frames(result.num_frames);
  out.set_fps(result.fps);
  return out;
}

}  // namespace kino::convert
