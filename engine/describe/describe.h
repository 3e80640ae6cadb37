// What a checkpoint can do, from its configs and weight index alone: tasks, defaults, limits, the
// effective request, the bytes of its weights. The frontend asks it before a job is accepted, and
// the engine before it runs one. Everything here is immutable after construction and thread-safe.
// No torch.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/core/component_files.h"
#include "engine/core/dtype.h"
#include "engine/describe/compute_dtypes.h"
#include "engine/describe/model_card.h"
#include "engine/describe/request.h"
#include "engine/describe/vae_tile_sizes.h"

namespace kino::engine {

// A weight as the checkpoint holds it.
struct WeightTensor {
  std::string name;
  std::vector<int64_t> shape;
  DType dtype = DType::kF32;
  int64_t bytes = 0;     // in the file, all that belongs to it
  int64_t elements = 0;  // once decoded
  // It is quantized in the file (GGUF's blocks, bitsandbytes): bytes are its stored form's.
  bool is_quantized = false;
};

struct TaskDescription {
  Task task;
  Request defaults;
};

struct Limits {
  int size_multiple = 1;  // height and width are multiples of this
  int min_size = 1;       // pixels a side
  int max_size = 1;
  int frames_multiple = 1;  // num_frames is k * frames_multiple + 1, others become the one below
  int max_frames = 1;
  int64_t max_pixels = 1;  // height * width * num_frames
  int max_steps = 1;       // 0: nothing is denoised
};

// One component of a model folder (text_encoder, transformer, vae, ...).
struct ComponentDescription {
  std::string name;
  std::string library;  // "diffusers", "transformers"
  std::string class_name;
  // Bytes of its weight tensors in the files, and the number of their elements.
  int64_t weight_bytes = 0;
  int64_t weight_elements = 0;
  std::vector<WeightTensor> weights = {};
  // A VAE: what a plan says of lossy storage reaches it by name only.
  bool is_autoencoder = false;
  // Of the files it is read from: the model's, or empty where it has none of that.
  std::string variant = {};
  // The component whose folder holds its weights as well (LLaVA's image encoder, in text_encoder);
  // empty: it has a folder of its own.
  std::string part_of = {};
};

// What a family says of a checkpoint. Subclassed in engine/models/<family>/describe.
class FamilyDescription {
 public:
  virtual ~FamilyDescription() = default;
  virtual const std::vector<TaskDescription>& tasks() const = 0;
  virtual const Limits& limits() const = 0;
  // The frames that come out where so many are asked for, as the task's diffusers pipeline has it.
  // Of what it gives it gives the same. REQUIRES: frames > 0.
  virtual int FramesOf(Task, int frames) const {
    const int multiple = limits().frames_multiple;
    return (frames - 1) / multiple * multiple + 1;
  }
  // Of its VAE, as diffusers defaults them.
  virtual const VaeTileSizes& vae_tiles() const = 0;
  // The component is one of this model's, not another's that lies in the folder as well.
  virtual bool Uses(const ComponentDescription&) const { return true; }
  // OK when an effective request can run in such tiles. INVALID_ARGUMENT: why not.
  virtual absl::Status CheckTiling(const Request&, const VaeTiling&) const {
    return absl::OkStatus();
  }
  // The video that an effective request gives.
  virtual VideoSize OutputOf(const Request& request) const {
    return {.height = *request.height, .width = *request.width, .num_frames = *request.num_frames};
  }
  // Fills what the request leaves open and its conditions tell, before the operator's values
  // (`configured`, which go before what a video is like) and the task's defaults do.
  virtual void FillFromConditions(const Request& /*configured*/, Request&) const {}
  // Appends what is wrong with the request beyond single fields, and fills knobs whose default
  // depends on others. Every other default is in `request` already; a knob that is not what its
  // table asks for is reported already, and ReadKnobs leaves it out.
  virtual void Resolve(Request& request, std::vector<FieldViolation>& violations) const = 0;
};

struct ModelDescription {
  std::string folder;
  OriginalFiles original_files;
  // Which weight files are read, as diffusers' variant ("fp16"); empty: the plain ones.
  std::string variant;
  std::string family;          // "ltx"
  std::string pipeline_class;  // as model_index.json names it
  std::string generation;  // the published model it is ("CogVideoX-5b-I2V"), where that is known
  ModelCard card;
  std::vector<ComponentDescription> components;
  std::shared_ptr<const FamilyDescription> details;
  std::vector<KnobInfo> knobs;  // the family's, of all tasks
  // What the operator's configuration sets over the family's defaults.
  Request overrides;

  // The tasks with the defaults a request gets here.
  std::vector<TaskDescription> Tasks() const;
  // Bytes of all weights held as they are computed with.
  int64_t WeightBytes(const ComputeDTypes& dtypes) const;
  // The names of the components that have weights: what a plan can place.
  std::vector<std::string> WeightedComponents() const;
  // The components that have no files of the variant, so that their plain ones are read.
  std::vector<std::string> ComponentsWithoutVariant() const;
};

// Reads model_index.json, each component's config.json and safetensors headers, and the header of
// each original file. NOT_FOUND: no such folder or file, or no component has files of the
// `variant`. INVALID_ARGUMENT: a file is malformed, or takes the place of a component that the
// model has not. UNIMPLEMENTED: a pipeline class Kino does not know, a component of a kind it does
// not, or one that is not read from original files.
absl::StatusOr<ModelDescription> DescribeModel(const std::string& folder,
                                               const OriginalFiles& original_files = {},
                                               const std::string& variant = "");

// The paths of the files that the model's weights are read from. Reads their headers. Errors are
// those of a load.
absl::StatusOr<std::vector<std::string>> WeightFiles(const ModelDescription& model);

// The effective request. When violations is not empty the request must not run.
struct ResolvedRequest {
  Request request;
  std::vector<FieldViolation> violations;
};

// OK when there is none. INVALID_ARGUMENT: "field: description" of the first.
absl::Status FirstViolation(const std::vector<FieldViolation>& violations);

// The request's task; of one that names none the model's only one, else that of its conditions.
Task TaskOf(const ModelDescription& model, const Request& request);

// Infers the task, fills defaults and checks every field against the model's limits. `draw_seed` is
// used when the request has no seed.
ResolvedRequest ResolveRequest(const ModelDescription& model, const Request& request,
                               uint64_t draw_seed);

}  // namespace kino::engine
