#include "tests/support/fake_engine.h"

#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"

namespace kino::support {
namespace {

namespace fs = std::filesystem;

struct Script {
  int steps = 4, step_ms = 0, chunks = 3, chunk_bytes = 1000, at = -1, groups = 1;
  std::string what, once, touch, until, then, offload;
};

void ParseWords(const std::string& text, Script& script) {
  std::map<std::string, int*> numbers = {
      {"steps", &script.steps},   {"step_ms", &script.step_ms},
      {"chunks", &script.chunks}, {"chunk_bytes", &script.chunk_bytes},
      {"at", &script.at},         {"groups", &script.groups}};
  std::map<std::string, std::string*> words = {
      {"do", &script.what},     {"once", &script.once}, {"touch", &script.touch},
      {"until", &script.until}, {"then", &script.then}, {"offload", &script.offload}};
  for (const std::string& word :
       std::vector<std::string>(absl::StrSplit(text, absl::ByAnyChar(" \n")))) {
    const std::pair<std::string, std::string> pair = absl::StrSplit(word, absl::MaxSplits('=', 1));
    if (numbers.count(pair.first) != 0) {
      if (!absl::SimpleAtoi(pair.second, numbers[pair.first])) std::abort();
    } else if (words.count(pair.first) != 0) {
      *words[pair.first] = pair.second;
    }
  }
}

Script ParseScript(const engine::Request& request) {
  Script script;
  script.steps = request.num_inference_steps.value_or(script.steps);
  ParseWords(request.prompt.value_or(""), script);
  return script;
}

Script ReadScript(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  Script script;
  ParseWords(text.str(), script);
  return script;
}

// Does what the script says. check: CANCELLED where the token says so.
absl::Status Misbehave(const Script& script, const std::function<absl::Status()>& check,
                       std::atomic<bool>& device_lost) {
  if (!script.touch.empty()) std::ofstream(script.touch) << "reached";
  if (!script.once.empty()) {
    if (fs::exists(script.once)) return absl::OkStatus();
    std::ofstream(script.once) << "done";
  }
  if (script.what == "oom") return absl::ResourceExhaustedError("fake: out of memory");
  if (script.what == "invalid") return absl::InvalidArgumentError("fake: does not fit");
  if (script.what == "internal") return absl::InternalError("fake: broke");
  if (script.what == "deadline") return absl::DeadlineExceededError("fake: something was slow");
  if (script.what == "device_lost") {
    device_lost.store(true);
    return absl::InternalError("fake: the device is lost");
  }
  if (script.what == "abort") std::abort();
  if (script.what == "exit") _exit(3);
  if (script.what == "kill") kill(getpid(), SIGKILL);
  while (script.what == "deaf" && (script.until.empty() || !fs::exists(script.until)))
    absl::SleepFor(absl::Milliseconds(1));
  while (script.what == "hang" || (script.what == "wait" && !fs::exists(script.until))) {
    if (absl::Status status = check(); !status.ok()) return status;
    absl::SleepFor(absl::Milliseconds(1));
  }
  if (script.then.empty()) return absl::OkStatus();
  Script next;
  next.what = script.then;
  return Misbehave(next, check, device_lost);
}

char FakeByte(uint64_t seed, int64_t offset) {
  return static_cast<char>((seed * 31 + static_cast<uint64_t>(offset) * 7 + offset / 251) & 0xff);
}

class FakeRun : public engine::Run {
 public:
  FakeRun(const engine::Request& request, engine::RunOptions options,
          std::shared_ptr<std::atomic<bool>> device_lost)
      : request_(request),
        options_(std::move(options)),
        script_(ParseScript(request)),
        device_lost_(std::move(device_lost)) {
    progress_.total_steps = script_.steps;
  }

  absl::StatusOr<bool> Advance() override {
    if (absl::Status status = Check(); !status.ok()) return status;
    counter_.fetch_add(1);
    if (position_ == script_.at) {
      if (absl::Status status = Misbehave(
              script_, [this] { return Check(); }, *device_lost_);
          !status.ok()) {
        return status;
      }
    }
    if (script_.step_ms > 0) absl::SleepFor(absl::Milliseconds(script_.step_ms));
    const int total = script_.steps + script_.chunks;
    if (position_ < script_.steps) {
      result_.step_seconds.push_back(script_.step_ms / 1000.0);
      progress_.stage = engine::Stage::kDenoise;
      progress_.step = position_ + 1;
      progress_.total_steps = script_.steps;
    } else if (position_ < total) {
      if (absl::Status status = EmitChunk(position_ - script_.steps); !status.ok()) return status;
      progress_.stage = engine::Stage::kDecode;
      progress_.step = position_ - script_.steps + 1;
      progress_.total_steps = script_.chunks;
    }
    ++position_;
    {
      const absl::MutexLock lock(&mutex_);
      pulse_.stage = progress_.stage;
      pulse_.steps = progress_.step;
      pulse_.step_seconds = kFakeStepSeconds;
    }
    progress_.fraction = static_cast<double>(position_) / total;
    if (position_ < total) return true;
    FillResult();
    return false;
  }

  const engine::RunProgress& progress() const override { return progress_; }
  engine::RunPulse pulse() const override {
    const absl::MutexLock lock(&mutex_);
    engine::RunPulse pulse = pulse_;
    pulse.counter = counter_.load();
    return pulse;
  }
  const engine::RunResult& result() const override { return result_; }

 private:
  absl::Status Check() const {
    return options_.cancel == nullptr ? absl::OkStatus() : options_.cancel->Check();
  }

  absl::Status EmitChunk(int index) {
    if (options_.output.mp4) {
      std::string bytes(static_cast<size_t>(script_.chunk_bytes), '\0');
      const int64_t begin = static_cast<int64_t>(index) * script_.chunk_bytes;
      for (int64_t i = 0; i < script_.chunk_bytes; ++i) {
        bytes[static_cast<size_t>(i)] = FakeByte(request_.seed.value_or(0), begin + i);
      }
      result_.output_bytes += script_.chunk_bytes;
      return options_.output.mp4(bytes);
    }
    engine::FloatFrames frames;
    frames.first_frame = index;
    frames.num_frames = 1;
    frames.height = request_.height.value_or(32);
    frames.width = request_.width.value_or(32);
    const std::vector<float> pixels(static_cast<size_t>(frames.height * frames.width * 3),
                                    static_cast<float>(index) / 10);
    frames.data = pixels.data();
    return options_.output.frames(frames);
  }

  void FillResult() {
    for (const engine::Stage stage : {engine::Stage::kDenoise, engine::Stage::kDecode}) {
      engine::StageStats stats{stage};
      stats.seconds = 0.5;
      stats.peak_device_bytes = 2000;
      result_.stages.push_back(stats);
    }
    result_.first_chunk_seconds = 0.25;
    result_.width = request_.width.value_or(32);
    result_.height = request_.height.value_or(32);
    result_.num_frames = request_.num_frames.value_or(script_.chunks);
    result_.fps = request_.fps.value_or(8);
    result_.plan = request_.plan;
    if (!script_.offload.empty()) result_.plan.offload = script_.offload;
  }

  const engine::Request request_;
  const engine::RunOptions options_;
  const Script script_;
  const std::shared_ptr<std::atomic<bool>> device_lost_;
  engine::RunProgress progress_;
  engine::RunResult result_;
  std::atomic<uint64_t> counter_{0};
  mutable absl::Mutex mutex_;
  engine::RunPulse pulse_ ABSL_GUARDED_BY(mutex_);
  int position_ = 0;
};

class FakeModel : public engine::Model {
 public:
  FakeModel(std::string folder, std::shared_ptr<std::atomic<bool>> device_lost,
            std::shared_ptr<std::atomic<int>> loaded)
      : device_lost_(std::move(device_lost)), loaded_(std::move(loaded)) {
    // A folder without a real model has no weights either.
    description_ = engine::DescribeModel(folder).value_or(engine::ModelDescription());
    description_.folder = std::move(folder);
    description_.family = "fake";
    load_stats_.seconds = 0.125;
    loaded_->fetch_add(1);
  }
  ~FakeModel() override { loaded_->fetch_sub(1); }

  const engine::ModelDescription& description() const override { return description_; }
  const engine::StageStats& load_stats() const override { return load_stats_; }
  absl::StatusOr<std::unique_ptr<engine::Run>> Start(const engine::Request& request,
                                                     std::vector<engine::MediaInput> media,
                                                     engine::RunOptions options) override {
    if (media.size() != request.conditions.size()) {
      return absl::InvalidArgumentError(absl::StrCat("conditions: ", request.conditions.size(),
                                                     " named, pixels of ", media.size()));
    }
    return std::make_unique<FakeRun>(request, std::move(options), device_lost_);
  }

 private:
  engine::ModelDescription description_;
  engine::StageStats load_stats_{engine::Stage::kLoad};
  const std::shared_ptr<std::atomic<bool>> device_lost_;
  const std::shared_ptr<std::atomic<int>> loaded_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<engine::Model>> FakeEngine::Load(const engine::ModelOptions& options,
                                                                const engine::CancelToken* cancel,
                                                                engine::WorkCounter* counter) {
  last_options_ = options;
  if (!fs::is_directory(options.folder)) {
    return absl::NotFoundError(absl::StrCat("no model folder '", options.folder, "'"));
  }
  if (!fs::exists(options.folder + "/model_index.json")) {
    return absl::InvalidArgumentError("model_index.json is missing");
  }
  const auto check = [cancel] { return cancel == nullptr ? absl::OkStatus() : cancel->Check(); };
  const Script script = ReadScript(options.folder + "/load_script");
  for (int group = 0; group < script.groups; ++group) {
    if (absl::Status status = check(); !status.ok()) return status;
    if (counter != nullptr) counter->Count();
    if (group > 0) continue;
    if (absl::Status status = Misbehave(script, check, *device_lost_); !status.ok()) return status;
  }
  return std::make_shared<FakeModel>(options.folder, device_lost_, loaded_);
}

absl::Status FakeEngine::CheckDevice() {
  const std::string what = ReadScript(options_.check_script).what;
  if (what == "wrong") return absl::InternalError("fake: the device computes wrongly");
  if (what == "device_lost") {
    device_lost_->store(true);
    return absl::InternalError("fake: the device is lost");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<engine::ProfileSource>> FakeEngine::Profiles(
    const engine::ModelOptions& options) const {
  auto model = engine::DescribeModel(options.folder, options.original_files, options.variant);
  if (!model.ok()) return model.status();
  class Source final : public engine::ProfileSource {
   public:
    Source(const engine::ModelDescription& model, const engine::ComputeDTypes& dtypes) {
      auto places = std::make_shared<std::vector<engine::ComponentPlaces>>();
      for (const engine::ComponentDescription& component : model.components) {
        if (component.weights.empty()) continue;
        engine::ComponentPlaces& to = places->emplace_back();
        to.component = component.name;
        for (const engine::WeightTensor& weight : component.weights)
          to.weights.push_back({.name = weight.name,
                                .part = "",
                                .group = "all",
                                .dtype = dtypes.Of(component.name)});
      }
      places_ = std::move(places);
    }
    absl::StatusOr<engine::RunProfile> Profile(
        const engine::Request& request,
        const std::vector<engine::PhaseVariant>& variants) override {
      std::vector<engine::PhaseNeed> phases;
      const int64_t elements = int64_t{*request.height} * *request.width * *request.num_frames;
      for (const auto& [stage, component] : {std::pair(engine::Stage::kEncodeText, "text_encoder"),
                                             std::pair(engine::Stage::kDenoise, "transformer"),
                                             std::pair(engine::Stage::kDecode, "vae")}) {
        phases.push_back({.stage = stage,
                          .component = component,
                          .part = "",
                          .device_activations = elements * 12,
                          .linear_flops = 1e6,
                          .passes = 1});
      }
      engine::RunProfile profile{.places = places_, .variants = {}};
      for (const engine::PhaseVariant& variant : variants)
        profile.variants.emplace_back(variant, phases);
      return profile;
    }

   private:
    std::shared_ptr<const std::vector<engine::ComponentPlaces>> places_;
  };
  return std::make_shared<Source>(*model, options.dtype.On(/*is_gpu=*/false));
}

std::string FakeOutput(uint64_t seed, int chunks, int chunk_bytes) {
  std::string bytes(static_cast<size_t>(chunks) * static_cast<size_t>(chunk_bytes), '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = FakeByte(seed, static_cast<int64_t>(i));
  return bytes;
}

}  // namespace kino::support
