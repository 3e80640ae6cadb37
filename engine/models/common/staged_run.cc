#include "engine/models/common/staged_run.h"

#include <algorithm>
#include <utility>

#include "engine/core/status_bridge.h"

namespace kino::engine {

RunState RunState::Clone() const {
  return {.stage = stage,
          .step = step,
          .latents = latents,
          .text = text,
          .pooled_text = pooled_text,
          .condition = condition,
          .image = image,
          .denoised = denoised,
          .window = window,
          .reference = reference,
          .tail = tail,
          .noise = noise.Clone()};
}

void StagedRun::AddStage(Stage stage, double share, int total_steps, Step step) {
  entries_.push_back({stage, share, total_steps, std::move(step), {}, passes_});
}

void StagedRun::AddDecode(double share, int frames, StartDecode start) {
  entries_.push_back({Stage::kDecode, share, frames, {}, std::move(start), passes_});
}

std::vector<PipelineRun::StageShare> StagedRun::stages() const {
  std::vector<StageShare> stages;
  for (const Entry& entry : entries_) stages.push_back({entry.stage, entry.share});
  return stages;
}

PipelineRun::Position StagedRun::position() const {
  const Entry& entry = entries_[state_.stage];
  Position position{.stage = entry.stage,
                    .index = state_.stage,
                    .step = state_.step,
                    .total_steps = entry.total_steps,
                    .fraction = 0,
                    .done = is_done_,
                    .pass = entry.pass,
                    .total_passes = passes_};
  double all = 0, finished = entry.share * state_.step / entry.total_steps;
  for (size_t i = 0; i < entries_.size(); ++i) {
    all += entries_[i].share;
    if (i < state_.stage) finished += entries_[i].share;
  }
  position.fraction = is_done_ ? 1 : finished / all;
  return position;
}

void StagedRun::Advance(const RunContext& context, const FrameSink& sink) {
  ThrowIfError(context.Advance());
  const Entry& entry = entries_[state_.stage];
  if (!is_decoding_) before_ = state_.Clone();
  is_decoding_ = entry.stage == Stage::kDecode;
  if (is_decoding_) {
    Decode(context, sink);
  } else {
    entry.step(context);
  }
}

void StagedRun::Finish(int steps, bool is_last) {
  state_.step += steps;
  if (!is_last) return;
  if (state_.stage + 1 < entries_.size()) return Enter(state_.stage + 1);
  Drop(entries_[state_.stage].stage);
  decoder_.reset();
  state_.latents.reset();
  state_.tail.reset();
  is_done_ = true;
}

void StagedRun::Decode(const RunContext& context, const FrameSink& sink) {
  if (decoder_ == nullptr) decoder_ = entries_[state_.stage].start_decode();
  const at::Tensor pixels = decoder_->NextFrames(context);
  int frames = 0;
  if (pixels.defined()) {
    frames = static_cast<int>(pixels.size(0));
    sink(pixels);
  }
  Finish(frames, decoder_->done());
}

std::vector<std::optional<std::string>> StagedRun::Prompts() const {
  if (!guided()) return {request_.prompt};
  return {request_.negative_prompt, request_.prompt};
}

void StagedRun::Enter(size_t index) {
  for (size_t i = state_.stage; i < index; ++i) Drop(entries_[i].stage);
  const bool only_decodes =
      std::all_of(entries_.begin() + static_cast<std::ptrdiff_t>(index), entries_.end(),
                  [](const Entry& entry) { return entry.stage == Stage::kDecode; });
  if (only_decodes) {
    state_.text.clear();
    state_.pooled_text.clear();
    state_.condition.reset();
    state_.image.reset();
    state_.denoised.reset();
    state_.window.reset();
    state_.reference.reset();
  }
  decoder_.reset();
  is_decoding_ = false;
  state_.stage = index;
  state_.step = 0;
}

void StagedRun::Retry(const Plan& plan) {
  request_.plan = plan;
  decoder_.reset();
  is_decoding_ = false;
  state_ = before_.Clone();
}

void StagedRun::SkipStage() {
  TORCH_CHECK(state_.stage + 1 < entries_.size(), "no stage comes behind ",
              StageName(entries_[state_.stage].stage));
  Enter(state_.stage + 1);
}

}  // namespace kino::engine
