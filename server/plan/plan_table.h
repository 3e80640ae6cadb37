// kino.v1.MemoryEstimate as a table for people: `kino plan` and `kino-render plan`. Free function.
#pragma once

#include <string>

#include "kino/v1/models.pb.h"

namespace kino::plan {

// A line for the device and its limits, a header, a line for each plan (a star marks the chosen
// one), and the refusal if there is one.
std::string PlanTable(const v1::MemoryEstimate& memory);

}  // namespace kino::plan
