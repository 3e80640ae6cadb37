// GenerateRequest's fields as options of `kino generate` and `kino submit`. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kino/v1/video.pb.h"
#include "server/cli/commands.h"
#include "server/cli/knob_flags.h"
#include "server/command_line/command_line.h"
#include "server/plan/plan_flags.h"

namespace kino::cli {

// A local file to upload and name as a condition.
struct ConditionFile {
  v1::Condition::Kind kind;
  std::string path;
};

struct RequestInput {
  v1::GenerateRequest request;
  std::vector<ConditionFile> files;  // uploaded in order, after the request's own conditions
};

// "KEY=VALUE" of a --label into `labels`. INVALID_ARGUMENT: no such text.
absl::Status AddLabel(const std::string& text,
                      google::protobuf::Map<std::string, std::string>* labels);

class RequestFlags {
 public:
  // What an argument without a name is.
  enum class Positional { kPrompt, kModel };

  // `this` outlives the parsing.
  void Register(CLI::App& app, Positional positional);
  // Parses, asking the server for the model's knobs when one of the options is none of kino's own
  // or --help is given. Prints --help and --version, and what is wrong; an exit code then.
  std::optional<ExitCode> Parse(CLI::App& app, const CommonFlags& common,
                                std::vector<std::string> arguments, RequestInput* input) const;
  // After `app` has parsed: the request file's fields with the options' on top. INVALID_ARGUMENT
  // names the option.
  absl::StatusOr<RequestInput> Build(const CLI::App& app) const;

 private:
  // In the order of the command line.
  absl::Status AddConditions(const CLI::App& app, RequestInput* input) const;

  std::string request_file_, model_, task_, priority_, request_id_;
  std::string start_timeout_, run_timeout_, result_ttl_, tenant_;
  std::optional<std::string> positional_;
  std::vector<std::string> labels_, images_, videos_, control_videos_, frame_indexes_, strengths_;
  std::optional<std::string> prompt_, negative_prompt_;
  std::optional<int> height_, width_, num_frames_, steps_, quality_;
  std::optional<double> guidance_scale_, fps_;
  std::optional<uint64_t> seed_;
  bool lossless_ = false;
  Positional kind_ = Positional::kPrompt;
  plan::PlanFlags plan_;
};

}  // namespace kino::cli
