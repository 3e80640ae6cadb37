// GenerateRequest's fields as flags of `kino generate` and `kino submit`. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kino/v1/video.pb.h"
#include "server/cli/commands.h"
#include "server/cli/knob_flags.h"
#include "server/flags/flags.h"
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
  std::vector<KnobFlag> knobs;       // the server knows what they are
};

class RequestFlags {
 public:
  // What an argument without a name is.
  enum class Positional { kPrompt, kModel };

  // `this` outlives `flags`' parsing.
  void Register(flags::FlagSet* flags, Positional positional = Positional::kPrompt);
  // The request file's fields with the flags' on top. INVALID_ARGUMENT names the flag.
  absl::StatusOr<RequestInput> Build() const;
  // The same, with what the server says of the flags of the model's family. Prints what is wrong;
  // an exit code then.
  std::optional<ExitCode> Build(const CommonFlags& common, Client& client,
                                RequestInput* input) const;
  // With --help: what Help() says, and of the model's own flags what the server says of them.
  void PrintHelp(const CommonFlags& common, const flags::FlagSet& flags) const;

 private:
  std::string request_file_, model_, task_, priority_, request_id_;
  std::string start_timeout_, run_timeout_, tenant_;
  std::vector<std::string> positional_, labels_, images_, videos_, control_videos_;
  std::optional<std::string> prompt_, negative_prompt_;
  std::optional<int> height_, width_, num_frames_, steps_, quality_;
  std::optional<int> frame_index_;
  std::optional<double> guidance_scale_, fps_, strength_;
  std::vector<KnobFlag> knobs_;
  std::optional<uint64_t> seed_;
  bool lossless_ = false;
  Positional kind_ = Positional::kPrompt;
  plan::PlanFlags plan_;
};

}  // namespace kino::cli
