// The command line of kino-worker, with the engine and the media decoder left to the caller.
#pragma once

#include "server/config/config.h"
#include "server/media/decode_client.h"
#include "server/worker/worker.h"

namespace kino::worker {

// The limits of a condition's file. They are those that the frontend probes an upload by, so that
// what it has accepted is decoded here.
media::DecodeOptions DecodeOptionsOf(const config::LimitsConfig& limits);

// Reads flags and configuration, sets up logging, guards the process (no core dump, no ptrace),
// then runs the worker.
int WorkerMain(int argc, char** argv, const EngineFactory& make_engine, const MediaDecoder& decode);

}  // namespace kino::worker
