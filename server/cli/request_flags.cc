#include "server/cli/request_flags.h"

#include <cmath>
#include <iostream>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/cli/print.h"
#include "server/command_line/input.h"
#include "server/convert/duration.h"
#include "server/convert/json.h"

namespace kino::cli {
namespace {

using command_line::AddOption;
using command_line::BadValue;

// "90s", "5m", "1h30m".
absl::Status SetDuration(const std::string& flag, const std::string& text,
                         google::protobuf::Duration* out) {
  absl::Duration duration;
  if (!absl::ParseDuration(text, &duration) || duration <= absl::ZeroDuration() ||
      duration > absl::Hours(24 * 365)) {
    return BadValue(flag, "a duration like 90s or 5m", text);
  }
  convert::SetDuration(duration, out);
  return absl::OkStatus();
}

}  // namespace

absl::Status AddLabel(const std::string& text,
                      google::protobuf::Map<std::string, std::string>* labels) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) return BadValue("--label", "KEY=VALUE", text);
  (*labels)[text.substr(0, equals)] = text.substr(equals + 1);
  return absl::OkStatus();
}

void RequestFlags::Register(CLI::App& app, Positional positional) {
  kind_ = positional;
  const bool is_prompt = positional == Positional::kPrompt;
  AddOption(app, is_prompt ? "PROMPT" : "MODEL", &positional_, "",
            is_prompt ? "What to show." : "May be absent when the server has one model.");
  AddOption(app, "--request", &request_file_, "FILE",
            "A GenerateRequest in JSON, - for standard input; the other flags go on top of it.");
  AddOption(app, "--model", &model_, "NAME", "May be absent when the server has one model.");
  AddOption(
      app, "--task", &task_, "TASK",
      "text_to_video, image_to_video, video_to_video or upscale. Default: by the conditions.");
  AddOption(app, "--prompt", &prompt_, "TEXT", "Another way to give the prompt.");
  AddOption(app, "--negative-prompt", &negative_prompt_, "TEXT", "What not to show.");
  AddOption(app, "--height", &height_, "PX",
            "Pixels; with upscale those of the video that goes in, by default its own.");
  AddOption(app, "--width", &width_, "PX", "The same.");
  AddOption(app, "--num-frames", &num_frames_, "N",
            "Frames of the clip; with upscale of the video that goes in, by default all.");
  AddOption(app, "--steps", &steps_, "N", "Denoise steps (num_inference_steps).");
  AddOption(app, "--guidance-scale", &guidance_scale_, "X", "Classifier-free guidance.");
  AddOption(app, "--seed", &seed_, "N", "Default: drawn by the server and stored with the job.");
  AddOption(app, "--fps", &fps_, "X", "Frames per second of the output.");
  AddOption(app, "--image", &images_, "FILE",
            "Uploads an image as a condition, of the first frame unless --frame-index says "
            "otherwise. This and the next two are repeatable.");
  AddOption(app, "--video", &videos_, "FILE", "Uploads a video as a condition, or for upscale.");
  AddOption(app, "--control-video", &control_videos_, "FILE", "Uploads a control video.");
  AddOption(app, "--frame-index", &frame_indexes_, "N",
            "The frame that the condition before it starts at; before the first condition: that "
            "they all do. Default: 0.");
  AddOption(app, "--strength", &strengths_, "X",
            "0 to 1, of the condition before it, or of all as with --frame-index. Default: 1.");
  AddOption(app, "--quality", &quality_, "N", "Of the video, 0 to 100.");
  app.add_flag("--lossless", lossless_, "Bit-exact pixels.");
  plan_.Register(app);
  AddOption(app, "--priority", &priority_, "CLASS", "low, normal or high.");
  AddOption(app, "--label", &labels_, "KEY=VALUE", "For bookkeeping; repeatable.");
  AddOption(app, "--request-id", &request_id_, "ID", "The same id gives the same job.");
  AddOption(app, "--start-timeout", &start_timeout_, "TIME",
            "Give up when not started in time (90s, 5m).");
  AddOption(app, "--run-timeout", &run_timeout_, "TIME", "Give up when not finished in time.");
  AddOption(
      app, "--result-ttl", &result_ttl_, "TIME",
      "Keep the video so long after the end (90s, 24h). Default: as long as the server does.");
  AddOption(app, "--tenant", &tenant_, "NAME", "Must be the token's.");
}

absl::Status RequestFlags::AddConditions(const CLI::App& app, RequestInput* input) const {
  v1::Condition of_all;  // what is said before the first one
  v1::Condition* condition = &of_all;
  std::map<std::string, size_t> seen;  // how often, by option
  for (const CLI::Option* option : app.parse_order()) {
    const std::string name = option->get_name();
    const size_t i = seen[name]++;
    if (name == "--frame-index") {
      int32_t frame = 0;
      if (!absl::SimpleAtoi(frame_indexes_[i], &frame))
        return BadValue(name, "a whole number", frame_indexes_[i]);
      condition->set_frame_index(frame);
    } else if (name == "--strength") {
      double strength = 0;
      if (!absl::SimpleAtod(strengths_[i], &strength) || !std::isfinite(strength))
        return BadValue(name, "a finite number", strengths_[i]);
      condition->set_strength(strength);
    }
    for (const auto& [flag, kind, paths] :
         {std::tuple{"--image", v1::Condition::IMAGE, &images_},
          std::tuple{"--video", v1::Condition::VIDEO, &videos_},
          std::tuple{"--control-video", v1::Condition::CONTROL_VIDEO, &control_videos_}}) {
      if (name != flag) continue;
      condition = input->request.add_conditions();
      *condition = of_all;
      condition->set_kind(kind);
      input->files.push_back({kind, (*paths)[i]});
    }
  }
  if (condition == &of_all && of_all.ByteSizeLong() > 0) {
    return absl::InvalidArgumentError(
        "--frame-index and --strength belong to --image, --video or --control-video");
  }
  return absl::OkStatus();
}

absl::StatusOr<RequestInput> RequestFlags::Build(const CLI::App& app) const {
  RequestInput input;
  v1::GenerateRequest& out = input.request;
  if (!request_file_.empty()) {
    const absl::StatusOr<std::string> text = command_line::ReadInputText(request_file_);
    if (!text.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--request: ", std::string(text.status().message())));
    }
    auto parsed = convert::FromJson(*text);
    if (!parsed.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--request: '", request_file_, "': ", std::string(parsed.status().message())));
    }
    out = *std::move(parsed);
  }
  const bool is_prompt = kind_ == Positional::kPrompt;
  if (positional_ && (is_prompt ? prompt_.has_value() : !model_.empty())) {
    return absl::InvalidArgumentError(
        absl::StrCat("the ", is_prompt ? "prompt" : "model", " is given twice"));
  }
  if (positional_) is_prompt ? out.set_prompt(*positional_) : out.set_model(*positional_);
  if (prompt_) out.set_prompt(*prompt_);
  if (negative_prompt_) out.set_negative_prompt(*negative_prompt_);
  if (!model_.empty()) out.set_model(model_);
  if (!task_.empty()) {
    v1::Task task;
    if (!v1::Task_Parse(absl::AsciiStrToUpper(task_), &task)) {
      return BadValue("--task", "text_to_video, image_to_video, video_to_video or upscale", task_);
    }
    out.set_task(task);
  }
  if (height_) out.set_height(*height_);
  if (width_) out.set_width(*width_);
  if (num_frames_) out.set_num_frames(*num_frames_);
  if (steps_) out.set_num_inference_steps(*steps_);
  if (guidance_scale_) out.set_guidance_scale(*guidance_scale_);
  if (seed_) out.set_seed(*seed_);
  if (fps_) out.set_fps(*fps_);
  if (quality_) out.mutable_output()->set_quality(*quality_);
  if (lossless_) out.mutable_output()->set_lossless(true);
  // Only when one of its flags is given: a plan of the request's own may be refused.
  v1::Plan plan = out.plan();
  if (absl::Status status = plan_.Apply(&plan); !status.ok()) return status;
  if (out.has_plan() || plan.ByteSizeLong() > 0) *out.mutable_plan() = std::move(plan);
  if (!priority_.empty()) {
    v1::Priority priority;
    if (!v1::Priority_Parse(absl::AsciiStrToUpper(priority_), &priority) ||
        priority == v1::PRIORITY_UNSPECIFIED) {
      return BadValue("--priority", "low, normal or high", priority_);
    }
    out.set_priority(priority);
  }
  for (const std::string& label : labels_) {
    if (absl::Status status = AddLabel(label, out.mutable_labels()); !status.ok()) return status;
  }
  if (!request_id_.empty()) out.set_request_id(request_id_);
  if (!tenant_.empty()) out.set_tenant(tenant_);
  if (!start_timeout_.empty()) {
    absl::Status status =
        SetDuration("--start-timeout", start_timeout_, out.mutable_start_timeout());
    if (!status.ok()) return status;
  }
  if (!run_timeout_.empty()) {
    absl::Status status = SetDuration("--run-timeout", run_timeout_, out.mutable_run_timeout());
    if (!status.ok()) return status;
  }
  if (!result_ttl_.empty()) {
    absl::Status status = SetDuration("--result-ttl", result_ttl_, out.mutable_result_ttl());
    if (!status.ok()) return status;
  }
  if (absl::Status status = AddConditions(app, &input); !status.ok()) return status;
  return input;
}

std::optional<ExitCode> RequestFlags::Parse(CLI::App& app, const CommonFlags& common,
                                            std::vector<std::string> arguments,
                                            RequestInput* input) const {
  KnobFlags knobs;
  knobs.AddPlaceholders(app, &arguments);
  const absl::StatusOr<std::string> text = command_line::Parse(app, arguments);
  if (!text.ok()) return UsageError(std::string(text.status().message()), WantsJson(arguments));
  const bool wants_help = app.get_help_ptr()->count() > 0;
  if (!text->empty() && !wants_help) {
    std::cout << *text;
    return kOk;
  }
  absl::StatusOr<RequestInput> built = Build(app);
  if (!wants_help && !built.ok())
    return UsageError(std::string(built.status().message()), common.is_json);
  if (wants_help || knobs.has_placeholders()) {
    Client client(common.server);
    const absl::StatusOr<v1::Model> model =
        FindModel(client, built.ok() ? built->request.model() : "");
    const absl::Status known = model.ok() ? knobs.Register(app, *model) : absl::OkStatus();
    if (wants_help) {
      std::cout << app.help();
      if (!model.ok()) {
        std::cout << "A model's family has options of its own, which the server tells: --help "
                     "--model NAME.\n";
      }
      return kOk;
    }
    if (absl::IsInvalidArgument(model.status()))
      return UsageError(std::string(model.status().message()), common.is_json);
    if (!model.ok()) return ReportError(model.status(), common.errors());
    if (!known.ok()) return UsageError(std::string(known.message()), common.is_json);
    if (auto code = cli::Parse(app, arguments)) return *code;
    knobs.Apply(&built->request);
  }
  *input = *std::move(built);
  return std::nullopt;
}

}  // namespace kino::cli
