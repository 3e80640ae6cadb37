#include "server/render/plan_command.h"

#include <iostream>
#include <optional>

#include "engine/core/machine.h"
#include "engine/describe/weight_plan.h"
#include "server/convert/json.h"
#include "server/convert/memory_estimate.h"
#include "server/convert/request.h"
#include "server/plan/plan_table.h"
#include "server/render/inputs.h"
#include "server/render/model_flags.h"

namespace kino::render {
namespace {

using command_line::AddOption;

constexpr char kText[] =
    "Shows what a request would need on a device, plan by plan, fastest first; nothing is run. A "
    "star marks what would run. A device that is not here is planned for all the same: give its "
    "memory as --max-device-memory. The request is --request, the sizes on top of it, or the "
    "model's defaults.";
constexpr char kEpilogue[] =
    "Exit codes: 0 it fits; 2 usage; 3 it fits nowhere, or the request or the model cannot be "
    "used.";

struct PlanFlagValues {
  std::string request_file;
  std::optional<int> height, width, num_frames;
  bool is_json = false;
};

ExitCode Report(ExitCode code, const std::string& message) {
  std::cerr << "kino-render: " << message << "\n";
  return code;
}

// What there is of the device's memory; 0 where that cannot be known here. From here on this
// process has the threads that a run would have.
absl::StatusOr<engine::DeviceSpec> SpecOf(const engine::EngineOptions& options) {
  engine::DeviceSpec spec{.is_gpu = options.device != "cpu"};
  spec.host_bytes = engine::UsableMemoryBytes();
  const auto engine = engine::Engine::Create(options);
  if (engine.ok()) {
    spec.device_bytes = (*engine)->device_memory_bytes();
    // A run plans for what is free, as this process has nothing there yet.
    if (spec.is_gpu) spec.device_bytes -= (*engine)->device_memory_used_bytes();
  } else if (absl::IsFailedPrecondition(engine.status())) {
    std::cerr << "kino-render: " << std::string(engine.status().message())
              << "; planning for one of unknown memory\n";
  } else {
    return engine.status();
  }
  return spec;
}

absl::StatusOr<v1::GenerateRequest> MakeRequest(const PlanFlagValues& values) {
  v1::GenerateRequest request;
  if (!values.request_file.empty()) {
    auto read = ReadRequest(values.request_file);
    if (!read.ok()) return read.status();
    request = *std::move(read);
  }
  if (values.height) request.set_height(*values.height);
  if (values.width) request.set_width(*values.width);
  if (values.num_frames) request.set_num_frames(*values.num_frames);
  return request;
}

}  // namespace

ExitCode PlanCommand(const std::vector<std::string>& arguments) {
  PlanFlagValues values;
  ModelFlags model_flags;
  CLI::App app(kText, "kino-render plan");
  command_line::SetUp(app, kEpilogue);
  model_flags.Register(app);
  AddOption(app, "--request", &values.request_file, "FILE", "The request.");
  AddOption(app, "--height", &values.height, "PX", "Pixels.");
  AddOption(app, "--width", &values.width, "PX", "Pixels.");
  AddOption(app, "--num-frames", &values.num_frames, "N", "Frames of the clip.");
  app.add_flag("--json", values.is_json, "kino.v1.MemoryEstimate as JSON.");
  if (const auto code = command_line::ParseOrExit(app, arguments)) return ExitCode(*code);
  engine::EngineOptions engine;
  engine::ModelOptions model;
  if (absl::Status status = model_flags.Apply(&engine, &model); !status.ok()) {
    return Report(absl::IsNotFound(status) ? kBadRequest : kUsage, std::string(status.message()));
  }
  const auto message = MakeRequest(values);
  if (!message.ok()) return Report(kBadRequest, std::string(message.status().message()));
  const auto description = engine::DescribeModel(model.folder, model.original_files, model.variant);
  if (!description.ok()) return Report(kBadRequest, std::string(description.status().message()));

  convert::EngineRequest request = convert::ToEngine(*message);
  if (!request.request.prompt && engine::Denoises(engine::TaskOf(*description, request.request)))
    request.request.prompt = std::string(convert::kUnknownPromptBytes, 'x');
  // Without its files a request is planned for videos as long as the one it asks for.
  if (const auto media = ReadConditions(*message, values.request_file); media.ok())
    TellSizes(*media, request.request);
  request.request.plan = engine::MergePlans(model.plan, request.request.plan);
  const engine::ResolvedRequest resolved =
      engine::ResolveRequest(*description, request.request, /*draw_seed=*/0);
  std::vector<engine::FieldViolation> violations = request.violations;
  violations.insert(violations.end(), resolved.violations.begin(), resolved.violations.end());
  if (const absl::Status status = engine::FirstViolation(violations); !status.ok())
    return Report(kBadRequest, std::string(status.message()));
  const auto spec = SpecOf(engine);
  if (!spec.ok()) return Report(kUsage, std::string(spec.status().message()));
  if (const absl::Status status = model.dtype.Check(description->WeightedComponents());
      !status.ok())
    return Report(kBadRequest, std::string(status.message()));
  const engine::ComputeDTypes dtype = model.dtype.On(spec->is_gpu);
  const auto memory =
      convert::EstimateMemory(*description, resolved.request,
                              {.device = engine.device,
                               .dtype = dtype,
                               .spec = *spec,
                               .profiles = engine::ProfilesOf(*description, dtype, spec->is_gpu),
                               .allow_lossy = model.allow_lossy});
  if (!memory.ok()) return Report(kBadRequest, std::string(memory.status().message()));
  std::cout << (values.is_json ? convert::ToJson(*memory, convert::JsonLayout::kIndented)
                               : plan::PlanTable(*memory));
  return memory->refusal().empty() ? kOk : kBadRequest;
}

}  // namespace kino::render
