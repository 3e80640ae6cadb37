#include "engine/models/hunyuan_video/framepack_run.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "engine/models/common/condition_frames.h"
#include "engine/models/common/joined_decode.h"
#include "engine/models/common/latents.h"

namespace kino::engine {
namespace {

// Latent frames of the history at full resolution, at a half and at a quarter.
constexpr int64_t kClean = 1, kClean2x = 2, kClean4x = 16, kHistory = kClean + kClean2x + kClean4x;

// `count` numbers from `first` on.
std::vector<int64_t> Indices(int64_t first, int64_t count) {
  std::vector<int64_t> indices(static_cast<size_t>(count));
  std::iota(indices.begin(), indices.end(), first);
  return indices;
}

// How many sections lie between this one, of those made from the end, and the video's beginning.
int64_t SectionsBefore(int section, int count) {
  const int before = count - 1 - section;
  // Of many sections the video is taken to be shorter than it is (latent_paddings upstream).
  return count <= 4 ? before : section == 0 ? 3 : std::min(before, 2);
}

}  // namespace

FramePackRun::FramePackRun(Inputs inputs)
    : HunyuanVideoRun(std::move(inputs)),
      is_vanilla_(*knobs_.sampling_type == kVanilla),
      sections_(FramePackSectionsOf(request_)) {
  AddStage(Stage::kEncodeText, kTextShare, 1, &FramePackRun::EncodePrompts);
  AddStage(Stage::kEncodeMedia, kMediaShare, 1, &FramePackRun::EncodeMedia);
  for (int i = 0; i < sections_.count; ++i) {
    AddSection(i);
    if (is_vanilla_) AddPiece(i);
  }
  if (is_vanilla_) return;
  for (int i = 0; i < sections_.count; ++i) AddPiece(i);
}

void FramePackRun::AddSection(int section) {
  if (section > 0) BeginPass();
  AddStage(Stage::kDenoise, kDenoiseShare / sections_.count,
           static_cast<int>(schedule_.timesteps.size()),
           [this, section](const RunContext& context) { Denoise(section, context); });
}

void FramePackRun::AddPiece(int place) {
  const Piece piece = PieceAt(place);
  AddDecode(kDecodeShare / sections_.count, static_cast<int>(piece.frames - piece.held),
            [this, place] { return StartDecode(place); });
}

void FramePackRun::EncodePrompts(const RunContext& context) {
  EncodeText(context);
  Finish(1, /*is_last=*/true);
}

void FramePackRun::EncodeMedia(const RunContext& context) {
  const at::Tensor pixels = EncoderPixelsOfFrame(*components_->image_processor, media_.front(),
                                                 *request_.height, *request_.width);
  state_.image = components_->image_encoder->Forward({pixels}, context)
                     .front()
                     .to(components_->transformer->device());
  TapTensor(tap_, "image_states", state_.image);
  std::vector<at::Tensor> latents;
  for (size_t i = 0; i < media_.size(); ++i) {
    const at::Tensor sample = SamplePosterior(EncodeImage(i, context), state_.noise);
    latents.push_back((sample * components_->vae->config().scaling_factor).to(at::kFloat));
  }
  state_.condition = at::cat(latents, 2);
  // The image begins the video, and the sections have their places behind it.
  state_.latents = at::constant_pad_nd(state_.condition.narrow(2, 0, 1),
                                       {0, 0, 0, 0, 0, sections_.count * sections_.window});
  Finish(1, /*is_last=*/true);
}

void FramePackRun::Denoise(int section, const RunContext& context) {
  if (state_.step == 0) state_.window = DrawNoise(sections_.window);
  if (!prepared_) {
    prepared_ = Prepare(sections_.window, schedule_.timesteps, context);
    components_->transformer->SetHistory(
        *prepared_, is_vanilla_ ? VanillaHistory(section) : InvertedHistory(section));
  }
  const size_t step = static_cast<size_t>(state_.step);
  const at::Tensor prediction = Predict(state_.window, context).to(at::kFloat);
  state_.window =
      EulerStep(state_.window, prediction, schedule_.sigmas[step], schedule_.sigmas[step + 1]);
  const int steps = static_cast<int>(schedule_.timesteps.size());
  TapStep(section * steps + state_.step, state_.window);
  const bool is_last = state_.step + 1 == steps;
  if (is_last) {
    const int64_t begin = BeginOf(section), end = begin + sections_.window;
    state_.latents =
        at::cat({state_.latents.narrow(2, 0, begin), state_.window, LatentsFrom(end)}, 2);
  }
  Finish(1, is_last);
}

int64_t FramePackRun::BeginOf(int section) const {
  return 1 + (is_vanilla_ ? section : sections_.count - 1 - section) * sections_.window;
}

at::Tensor FramePackRun::LatentsFrom(int64_t begin) const {
  return state_.latents.narrow(2, begin, state_.latents.size(2) - begin);
}

// The history is what comes behind the section, the nearest first.
HunyuanVideoHistory FramePackRun::InvertedHistory(int section) const {
  const at::Tensor image = state_.condition.narrow(2, 0, 1);
  const at::Tensor made = LatentsFrom(BeginOf(section) + sections_.window);
  const int64_t known = std::min(made.size(2), kHistory);
  const at::Tensor behind =
      at::constant_pad_nd(made.narrow(2, 0, known), {0, 0, 0, 0, 0, kHistory - known});
  const bool ends_with_image = section == 0 && state_.condition.size(2) == 2;
  const at::Tensor next =
      ends_with_image ? state_.condition.narrow(2, 1, 1) : behind.narrow(2, 0, kClean);
  const int64_t window = sections_.window;
  const int64_t first = 1 + SectionsBefore(section, sections_.count) * window;
  const int64_t after = first + window;
  return {.indices = Indices(first, window),
          .clean = {at::cat({image, next}, 2), {0, after}},
          .clean_2x = {behind.narrow(2, kClean, kClean2x), Indices(after + kClean, kClean2x)},
          .clean_4x = {behind.narrow(2, kClean + kClean2x, kClean4x),
                       Indices(after + kClean + kClean2x, kClean4x)}};
}

// The history is what comes before the section, the nearest last.
HunyuanVideoHistory FramePackRun::VanillaHistory(int section) const {
  const at::Tensor image = state_.condition.narrow(2, 0, 1);
  const int64_t begin = BeginOf(section), known = std::min(begin, kHistory);
  const at::Tensor before = at::constant_pad_nd(state_.latents.narrow(2, begin - known, known),
                                                {0, 0, 0, 0, kHistory - known, 0});
  return {
      .indices = Indices(1 + kHistory, sections_.window),
      .clean = {at::cat({image, before.narrow(2, kHistory - kClean, kClean)}, 2), {0, kHistory}},
      .clean_2x = {before.narrow(2, kClean4x, kClean2x), Indices(1 + kClean4x, kClean2x)},
      .clean_4x = {before.narrow(2, 0, kClean4x), Indices(1, kClean4x)}};
}

// A section is decoded together with its neighbour that was made before it, which gives the frames
// in which the two fade into each other. The image's latent frame belongs to the first one.
FramePackRun::Piece FramePackRun::PieceAt(int place) const {
  const int64_t window = sections_.window, all = 1 + sections_.count * window;
  Piece piece;
  if (is_vanilla_) {
    piece = place == 0 ? Piece{.first = 0, .latents = 1 + window}
                       : Piece{.first = 1 + (place - 1) * window, .latents = 2 * window};
  } else {
    piece = place == 0 ? Piece{.first = 0, .latents = 1 + 2 * window}
                       : Piece{.first = 1 + place * window, .latents = 2 * window};
    piece.latents = std::min(piece.latents, all - piece.first);
  }
  piece.frames = components_->vae->config().frames(static_cast<int>(piece.latents));
  piece.held = place + 1 < sections_.count ? sections_.overlap : 0;
  return piece;
}

std::unique_ptr<DecodeStream> FramePackRun::StartDecode(int place) {
  const Piece piece = PieceAt(place);
  return std::make_unique<JoinedDecode>(
      Decode(state_.latents.narrow(2, piece.first, piece.latents),
             absl::StrFormat("latents_%03d", is_vanilla_ ? place : sections_.count - 1 - place)),
      JoinedDecode::Part{.frames = piece.frames, .held = piece.held}, state_.tail, &state_.tail);
}

}  // namespace kino::engine
