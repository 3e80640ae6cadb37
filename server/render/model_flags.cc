#include "server/render/model_flags.h"

#include "server/convert/request.h"
#include "server/render/model_paths.h"

namespace kino::render {
namespace {

using command_line::AddOption;

// What was expected, where it is none.
std::string ParseDTypes(const std::string& text, engine::ComputeDTypes* dtypes) {
  auto parsed = engine::ComputeDTypes::Parse(text);
  if (!parsed.ok()) return engine::kComputeDTypesForm;
  *dtypes = *std::move(parsed);
  return "";
}

}  // namespace

void ModelFlags::Register(CLI::App& app) {
  AddOption(app, "--model", &models_, "PATH",
            "A folder in diffusers' layout. Another one, or one alone inside such a folder: a GGUF "
            "or single-file safetensors transformer in place of the folder's; COMPONENT=FILE, one "
            "in place of another component (text_encoder).");
  AddOption(app, "--device", &device_, "NAME", "cpu (default) or cuda:N.");
  AddOption(app, "--threads", &threads_, "N",
            "Threads on the CPU. Default: OMP_NUM_THREADS, or else the cores that may be used.");
  AddOption(
      app, "--dtype", [this](const std::string& text) { return ParseDTypes(text, &dtype_); },
      "TYPE",
      "auto (float32 on the CPU, bfloat16 on a GPU), float32, float16 or bfloat16; also of single "
      "components: bfloat16,vae=float32.");
  AddOption(app, "--variant", &variant_, "NAME", "Which weight files, as diffusers: fp16, bf16.");
  plan_.Register(app);
  app.add_flag("--allow-lossy", allow_lossy_, "--plan may choose lossy options.");
}

absl::Status ModelFlags::Apply(engine::EngineOptions* engine, engine::ModelOptions* model) const {
  v1::Plan plan;
  if (absl::Status status = plan_.Apply(&plan); !status.ok()) return status;
  if (threads_ < 0) return absl::InvalidArgumentError("--threads: expected 0 or more");
  if (models_.empty()) return absl::InvalidArgumentError("--model is needed");
  const absl::StatusOr<ModelPaths> paths = FindModel(models_);
  if (!paths.ok()) return paths.status();
  engine->device = device_;
  engine->threads = threads_;
  model->folder = paths->folder;
  model->original_files = paths->original_files;
  model->dtype = dtype_;
  model->variant = variant_;
  model->plan = convert::ToEngine(plan);
  model->allow_lossy = allow_lossy_;
  return absl::OkStatus();
}

}  // namespace kino::render
