// The command line of kino-worker, with the engine and the media decoder left to the caller.
#pragma once

#include "server/worker/worker.h"

namespace kino::worker {

// Reads flags and configuration, sets up logging, guards the process (no core dump, no ptrace),
// then runs the worker.
int WorkerMain(int argc, char** argv, const EngineFactory& make_engine, const MediaDecoder& decode);

}  // namespace kino::worker
