#include "server/frontend/rpc/job_work.h"

#include <algorithm>
#include <string>

#include "server/digest/sha256.h"
#include "server/frontend/rpc/deterministic.h"

namespace kino::frontend {

scheduler::JobWork WorkOf(const v1::GenerateRequest& effective, double flops) {
  // What is not taken away here counts: a field that is added later at worst tells runs apart that
  // take the same time.
  v1::GenerateRequest shape = effective;
  shape.clear_model();  // known beside
  shape.clear_prompt();
  shape.clear_negative_prompt();
  shape.clear_num_inference_steps();
  shape.clear_seed();
  shape.clear_fps();
  shape.clear_output();
  shape.clear_preview();
  shape.clear_request_id();
  shape.clear_labels();
  shape.clear_priority();
  shape.clear_start_timeout();
  shape.clear_run_timeout();
  shape.clear_result_ttl();
  shape.clear_tenant();
  // With guidance each step runs the network twice, whatever the scale.
  shape.set_guidance_scale(effective.guidance_scale() > 1 ? 2 : 1);
  for (v1::Condition& condition : *shape.mutable_conditions()) {
    condition.clear_strength();
    condition.clear_source();
  }
  return {.shape = digest::Sha256Of(SerializeDeterministically(shape)).substr(0, 32),
          // What denoises nothing is one step.
          .steps = std::max(effective.num_inference_steps(), 1),
          .flops = flops};
}

}  // namespace kino::frontend
