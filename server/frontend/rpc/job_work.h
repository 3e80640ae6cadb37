// How much work a job is, for estimates of its run's length.
#pragma once

#include "kino/v1/video.pb.h"
#include "scheduler/jobs/job.h"

namespace kino::frontend {

// `effective`: with every default filled in. Requests of equal shape differ only in what changes
// neither the number nor the size of a step's operations, such as prompt, seed and the number of
// steps. `flops`: of a whole run; 0: not known.
scheduler::JobWork WorkOf(const v1::GenerateRequest& effective, double flops);

}  // namespace kino::frontend
