// How the workers of one machine share its cores. Free functions over values.
#pragma once

#include "server/config/config.h"

namespace kino::config {

// The cores of `cores` that are `worker`'s, one of the configuration's: as many as it is configured
// to have threads, or else, on the CPU, an equal share of those that workers with threads of their
// own leave, and at least 1. Shares are equal so that a job computes alike on each of them. Workers
// on a GPU take no share: without threads of their own they get `cores`.
int CoresOf(const Config& config, const WorkerConfig& worker, int cores);

// Threads that the worker computes with on this machine: what it is configured with, else
// OMP_NUM_THREADS, else its share of the cores that may be used (engine/core/machine.h).
int WorkerThreads(const Config& config, const WorkerConfig& worker);

}  // namespace kino::config
