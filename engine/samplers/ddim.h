// DDIM and the DPM-Solver++ (2M SDE) over the same table of noise levels: sums of squares that keep
// the variance at 1 (the table has no torch in it), and the steps on tensors. Pure functions, state
// in, state out; thread-safe.
//
// Source: diffusers 0.42.1 schedulers/scheduling_ddim_cogvideox.py and
// scheduling_dpm_cogvideox.py. Tables and coefficients are double; where upstream multiplies a
// tensor by one of them, the product is in the tensor's dtype.
#pragma once

#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"

namespace at {
class Tensor;
}

namespace kino::engine {

enum class DdimSolver { kDdim, kDpm };

// scheduler_config.json, with the class's defaults.
struct DdimConfig {
  enum class Spacing { kLinspace, kLeading, kTrailing };

  DdimSolver solver = DdimSolver::kDdim;  // what the file's _class_name says
  int num_train_timesteps = 1000;
  double beta_start = 0.00085, beta_end = 0.012;
  bool set_alpha_to_one =
      true;  // the last step ends without noise; else as training's first has it
  int steps_offset = 0;
  Spacing spacing = Spacing::kLeading;
  bool rescale_betas_zero_snr = false;
  double snr_shift_scale = 3.0;

  // Unknown keys are ignored. INVALID_ARGUMENT names `where` (the file) and the key: of the wrong
  // type, out of range, of another sampler, or asking for what is not supported (betas that are
  // not scaled_linear, a prediction_type that is not v_prediction).
  static absl::StatusOr<DdimConfig> FromJson(const nlohmann::json& json, const std::string& where);
};

struct DdimStepLevels {
  int timestep = 0;  // what the model is told
  // Share of the picture in the variance, in the sample that the step takes and in the one it
  // gives: diffusers' alphas_cumprod.
  double alpha = 0, next_alpha = 0;
  bool reaches_end = false;  // next_alpha is that of no timestep
};
using DdimSchedule = std::vector<DdimStepLevels>;

// The steps from FirstStepAt(num_inference_steps, strength) on. INVALID_ARGUMENT: there is none, or
// more than the model was trained with.
absl::StatusOr<DdimSchedule> MakeDdimSchedule(const DdimConfig& config, int num_inference_steps,
                                              double strength = 1.0);

// The sample behind a step.  sample, model_output (a v-prediction): one shape -> the wider dtype.
at::Tensor DdimStep(const at::Tensor& sample, const at::Tensor& model_output,
                    const DdimStepLevels& levels);

// The same by DPM-Solver++. `step` of the schedule; `denoised` is the picture that the step before
// it predicted, undefined where the loop begins, and becomes what this one predicts. `draw` gives
// standard normal noise of the sample's shape and dtype and is called once or twice, as upstream,
// which throws the first away.
at::Tensor DpmSolverStep(const at::Tensor& sample, const at::Tensor& model_output,
                         at::Tensor& denoised, const DdimSchedule& schedule, int step,
                         absl::FunctionRef<at::Tensor()> draw);

// `original` with as much noise as a step with this alpha takes, computed in their dtype.
at::Tensor AddNoise(const at::Tensor& original, const at::Tensor& noise, double alpha);

}  // namespace kino::engine
