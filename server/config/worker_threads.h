// How the workers of one machine share its cores. Free functions over values.
#pragma once

#include "server/config/config.h"

namespace kino::config {

// Threads that `worker`, one of the configuration's, computes with on the CPU where `cores` may be
// used: what it is configured with, or else, on the CPU, an equal share of the cores that workers
// with threads of their own leave, and at least 1. Shares are equal so that a job computes alike on
// each of them. Workers on a GPU take no share: without threads of their own they get `cores`.
int WorkerThreads(const Config& config, const WorkerConfig& worker, int cores);

}  // namespace kino::config
